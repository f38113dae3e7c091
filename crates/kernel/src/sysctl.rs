//! Settings under `/proc/sys`. Those below `net` are the ones of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The file of a key such as `net.ipv4.ip_forward`. Where an interface's name holds a dot, write the key with slashes
/// instead: `net/ipv4/conf/eth0.7/forwarding`.
///
/// # Errors
/// `InvalidInput` for a key that would leave `/proc/sys`.
pub fn path(key: &str) -> io::Result<PathBuf> {
    let separator = if key.contains('/') { '/' } else { '.' };
    let mut path = PathBuf::from("/proc/sys");
    for part in key.split(separator) {
        if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{key:?} is not the name of a setting")));
        }
        path.push(part);
    }
    Ok(path)
}

/// The value of a setting, without the end of its line.
pub fn read(key: &str) -> io::Result<String> {
    let mut text = fs::read_to_string(path(key)?)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Sets it.
///
/// # Errors
/// `NotFound` if the kernel has no such setting, `EINVAL` if the value does not suit it.
pub fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(path(key)?, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leaves_proc_sys() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/a.7/tag").unwrap(), PathBuf::from("/proc/sys/net/ipv4/conf/a.7/tag"));
        for wrong in ["", "net/../../etc/passwd", "/etc/passwd", "net//x", "net.ipv4..tag"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
