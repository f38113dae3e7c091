//! The file that says which process the daemon is.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Written; removed when it is dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// # Errors
    /// The process that it names runs, as dockerd says it.
    pub fn write(path: &Path) -> anyhow::Result<Self> {
        let own = std::process::id();
        let said = std::fs::read_to_string(path).unwrap_or_default();
        let runs = |pid: &u32| *pid != own && Path::new(&format!("/proc/{pid}")).exists();
        if let Some(pid) = said.trim().parse::<u32>().ok().filter(runs) {
            bail!(
                "failed to start daemon, ensure docker is not running or delete {}: process with PID {pid} is still running",
                path.display()
            );
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        std::fs::write(path, own.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_keeps_its_file_and_a_dead_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/isle.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "1").unwrap();
        assert!(PidFile::write(&path).unwrap_err().to_string().contains("process with PID 1 is still running"));
        std::fs::write(&path, "4194999").unwrap();
        drop(PidFile::write(&path).unwrap());
    }
}
