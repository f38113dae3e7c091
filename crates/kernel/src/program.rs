//! A program that nobody can change: a sealed copy in memory.

use rustix::fs::{Access, CWD, MemfdFlags, Mode, OFlags, SealFlags, access, openat};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A program's descriptor.
pub struct Program {
    /// Open for reading.
    pub fd: OwnedFd,
    /// A sealed copy, to be executed as `/proc/self/fd/N`; else it is the file itself: the kernel has no such copies, or
    /// does not execute them (`vm.memfd_noexec`).
    pub sealed: bool,
}

/// Copies a program into memory, and seals it.
///
/// # Errors
/// It cannot be read, or there is no memory.
pub fn sealed(path: &Path) -> io::Result<Program> {
    let mut file = std::fs::File::open(path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC, from 6.3 on.
    const EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
    let create = |flags| rustix::fs::memfd_create(path.file_name().unwrap_or_default(), flags);
    let Ok(copy) = create(flags | EXEC).or_else(|_| create(flags)) else {
        return Ok(Program { fd: file.into(), sealed: false });
    };
    let mut writer = std::fs::File::from(copy);
    io::copy(&mut file, &mut writer)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&writer, seals)?;
    // A file that is open for writing cannot be executed.
    let name = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let reader = openat(CWD, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match access(format!("/proc/self/fd/{}", reader.as_raw_fd()), Access::EXEC_OK) {
        Ok(()) => Ok(Program { fd: reader, sealed: true }),
        Err(_) => Ok(Program { fd: file.into(), sealed: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_program_runs_and_cannot_be_written() {
        let program = sealed(Path::new("/bin/true")).unwrap();
        let path = format!("/proc/self/fd/{}", program.fd.as_raw_fd());
        if program.sealed {
            assert!(std::process::Command::new(&path).status().unwrap().success());
            let written = std::fs::OpenOptions::new().write(true).open(&path).and_then(|f| rewrite(&f));
            assert!(written.is_err());
        }
    }

    fn rewrite(mut file: &std::fs::File) -> io::Result<()> {
        io::Write::write_all(&mut file, b"other")
    }
}
