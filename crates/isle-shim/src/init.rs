//! Process 1 of a container that was started with `--init`: runs the command as its child, passes signals on, reaps
//! whatever is orphaned, and ends as the command ended. A fresh image of the shim's program, so nothing of the shim's
//! memory is in it.

use crate::{child, sys};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// By PATH, unless it is a path. What is not found is left to execve(2) to say.
fn find(name: &CString) -> CString {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = name.to_str().ok().filter(|name| !name.contains('/')).and_then(|name| child::search(name, &path).ok());
    found.and_then(|found| CString::new(found).ok()).unwrap_or_else(|| name.clone())
}

/// `args` after the `--`: the program's arguments from the zeroth on, by which it is found as the launcher has found it.
pub fn run(args: impl Iterator<Item = OsString>) -> ! {
    let strings = |list: Vec<OsString>| -> Vec<CString> {
        list.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect()
    };
    let args = strings(args.collect());
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        })
        .collect();
    let Some(program) = args.first().map(find) else { sys::exit_now(127) };
    let _ = rustix::thread::set_name(c"docker-init");
    sys::block_signals();
    let child = match sys::fork() {
        Ok(0) => {
            // A group of its own, in front on the terminal if there is one, as a shell's child would be.
            let _ = rustix::process::setpgid(None, None);
            if let Ok(group) = rustix::process::getpgid(None) {
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
            }
            sys::reset_signals();
            let errno = sys::execute(&program, &args, &env);
            let text = shim_protocol::launch::errno_words(errno.raw_os_error());
            eprintln!("exec {}: {text}", program.to_string_lossy());
            sys::exit_now(if errno == rustix::io::Errno::NOENT { 127 } else { 126 })
        }
        Ok(pid) => pid,
        Err(_) => sys::exit_now(125),
    };
    let mut code = None;
    loop {
        let signal = sys::next_signal();
        match signal {
            libc::SIGCHLD => {
                while let Some((pid, status)) = sys::reap() {
                    if pid == child {
                        let signal = status & 0x7f;
                        code = Some(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
                    }
                }
                if let Some(code) = code {
                    sys::exit_now(code);
                }
            }
            libc::SIGTTIN | libc::SIGTTOU => {}
            signal => {
                let _ = sys::kill(child, signal);
            }
        }
    }
}
