//! Which devices a version 2 cgroup may use: a small BPF program, attached to the cgroup, that the kernel asks on every
//! open and mknod.

#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use crate::cgroup::DeviceRule;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// One instruction: opcode, registers (destination in the low half), offset, immediate value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const COPY: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const SET: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const JUMP_UNEQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_UNEQUAL_REGISTER: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const EXIT: u8 = 0x95;

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The rules, the last one first: it wins.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { access_type: access << 16 | type; major; minor }
    let mut out = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND, 2, 0, 0, 0xffff), // the kind
        op(LOAD_WORD, 3, 1, 0, 0),
        op(SHIFT, 3, 0, 0, 16), // the access
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut part = Vec::new();
        let kind = match rule.kind {
            'b' => Some(1),
            'c' => Some(2),
            _ => None,
        };
        let access = rule.access.chars().fold(0, |bits, c| {
            bits | match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        if let Some(kind) = kind {
            part.push(op(JUMP_UNEQUAL, 2, 0, 0, kind));
            if access != 7 {
                // A rule allows what it covers wholly.
                part.push(op(COPY, 1, 3, 0, 0));
                part.push(op(AND, 1, 0, 0, access));
                part.push(op(JUMP_UNEQUAL_REGISTER, 1, 3, 0, 0));
            }
            if let Some(major) = rule.major.filter(|major| *major >= 0) {
                part.push(op(JUMP_UNEQUAL, 4, 0, 0, major as i32));
            }
            if let Some(minor) = rule.minor.filter(|minor| *minor >= 0) {
                part.push(op(JUMP_UNEQUAL, 5, 0, 0, minor as i32));
            }
        }
        part.push(op(SET, 0, 0, 0, i32::from(rule.allow)));
        part.push(op(EXIT, 0, 0, 0, 0));
        let length = part.len();
        for (at, instruction) in part.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER) {
                instruction.offset = (length - at - 1) as i16;
            }
        }
        out.extend(part);
        if kind.is_none() {
            // It matches everything: nothing before it counts, and the verifier refuses what cannot be reached.
            return out;
        }
    }
    out.push(op(SET, 0, 0, 0, 0));
    out.push(op(EXIT, 0, 0, 0, 0));
    out
}

/// Load the rules and attach them to the cgroup at `path`, beside nothing else of ours.
///
/// # Errors
/// The kernel's.
pub fn attach(path: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    const PROG_LOAD: libc::c_long = 5;
    const PROG_ATTACH: libc::c_long = 8;
    const CGROUP_DEVICE: u32 = 15; // BPF_PROG_TYPE_CGROUP_DEVICE
    const ATTACH_DEVICE: u32 = 6; // BPF_CGROUP_DEVICE
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 14],
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
        replace: u32,
        rest: u32,
    }
    let program = program(rules);
    let load = Load {
        kind: CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 14],
    };
    // SAFETY: the structure begins as the kernel's union for PROG_LOAD does, is zero beyond, and points to live memory.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let directory = fs::File::open(path)?;
    let attach = Attach {
        target: directory.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: ATTACH_DEVICE,
        flags: ALLOW_MULTI,
        replace: 0,
        rest: 0,
    };
    // SAFETY: the structure begins as the kernel's union for PROG_ATTACH does, and both descriptors are open.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: char, major: i64, minor: i64, access: &str) -> DeviceRule {
        let any = |n: i64| (n >= 0).then_some(n);
        DeviceRule { allow, kind, major: any(major), minor: any(minor), access: access.to_owned() }
    }

    /// What the kernel would do with a program, for the few instructions that we write.
    fn run(program: &[Instruction], access: i64, kind: i64, major: i64, minor: i64) -> i64 {
        let mut registers = [0_i64; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (destination, source) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => registers[destination] = [access << 16 | kind, major, minor][i.offset as usize / 4],
                AND => registers[destination] &= i64::from(i.immediate),
                SHIFT => registers[destination] >>= i.immediate,
                COPY => registers[destination] = registers[source],
                SET => registers[destination] = i64::from(i.immediate),
                JUMP_UNEQUAL if registers[destination] != i64::from(i.immediate) => at += i.offset as usize,
                JUMP_UNEQUAL_REGISTER if registers[destination] != registers[source] => at += i.offset as usize,
                JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER => {}
                EXIT => return registers[0],
                other => panic!("no such instruction: {other}"),
            }
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rules = [
            rule(false, 'a', -1, -1, "rwm"),
            rule(true, 'c', -1, -1, "m"),
            rule(true, 'c', 1, 3, "rwm"),
            rule(true, 'b', 8, -1, "r"),
        ];
        let program = program(&rules);
        let check = |access, kind, major, minor, expected| {
            assert_eq!(run(&program, access, kind, major, minor), expected, "{access} {kind} {major}:{minor}");
        };
        check(6, 2, 1, 3, 1);
        check(1, 2, 9, 9, 1);
        check(2, 2, 9, 9, 0);
        check(2, 1, 8, 4, 1);
        check(4, 1, 8, 4, 0);
        check(2, 1, 9, 4, 0);
        let open = super::program(&[rule(false, 'c', 1, 1, "rwm"), rule(true, 'a', -1, -1, "rwm")]);
        assert_eq!(run(&open, 7, 2, 1, 1), 1);
    }

    #[test]
    fn the_kernel_takes_a_filter() {
        let hierarchies = crate::cgroup::Hierarchies::detect();
        let Some(root) = hierarchies.ok().and_then(|found| found.v2) else {
            eprintln!("SKIP: no cgroups of version 2 are mounted");
            return;
        };
        let path = root.join(format!("isle-test-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            eprintln!("SKIP: cannot make a cgroup: {error}");
            return;
        }
        let rules = [rule(false, 'a', -1, -1, "rwm"), rule(true, 'c', 1, 3, "rw"), rule(true, 'b', -1, 5, "m")];
        let result = attach(&path, &rules).and_then(|()| attach(&path, &[rule(true, 'a', -1, -1, "rwm")]));
        fs::remove_dir(&path).unwrap();
        result.unwrap();
    }
}
