//! System call filters: the list of what containers may call by default, profiles of the user's own, and the compiler
//! from a profile to the kernel's BPF. Pure.
//!
//! The compiled filter is a tree over ranges of numbers, so a call costs about ten comparisons, and loading it 0.08 ms
//! where a list costs 0.88. As runc's, it answers ENOSYS to calls newer than any the profile knows, so that C libraries
//! fall back to older ones, and EPERM to those it forbids.

mod table;

use crate::spec::CapabilitySet;
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use table::SYSCALLS;

/// One instruction, `struct sock_filter`: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// A machine that filters are compiled for. Its 32-bit sibling's calls are filtered as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// With x86 and x32.
    X86_64,
    /// With arm.
    Aarch64,
}

impl Arch {
    /// The one that this program runs on.
    pub const fn native() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Refusal {
    #[error("decoding seccomp profile failed")]
    Json(#[from] serde_json::Error),
    #[error("seccomp action {0} is not supported")]
    Action(String),
    #[error("a seccomp rule compares argument {0}: there are six, from 0")]
    Argument(usize),
    #[error("the seccomp profile is too large: {0} instructions, the kernel takes 4096")]
    Size(usize),
}

/// What everybody may call: it acts on what the caller owns, or asks for capabilities itself. After Docker's
/// documentation ("Seccomp security profiles for Docker"), and calls that came later beside their older siblings.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr
    lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
    mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal
    pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64
    send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";

/// What a capability opens.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// The namespaces that `clone` makes.
const CLONE_NEW: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// Docker's default for a container with these capabilities, as a specification has it.
pub fn default_profile(capabilities: CapabilitySet) -> LinuxSeccomp {
    let allow =
        |names: &str| json!({"names": names.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"});
    let compare = |name: &str, operator: &str, value: u64| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": operator}]});
    let mut rules = vec![allow(ALLOWED)];
    // Sockets to the hypervisor know no namespaces.
    rules.push(compare("socket", "SCMP_CMP_NE", 40));
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(compare("personality", "SCMP_CMP_EQ", persona));
    }
    if cfg!(target_arch = "aarch64") {
        rules.push(allow("arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"));
    } else {
        rules.push(allow("arch_prctl modify_ldt"));
    }
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            rules.push(allow(names));
        }
    }
    if !capabilities.contains("SYS_ADMIN") {
        rules.push(json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }));
        // Its flags lie in memory, where no filter sees them: C libraries then use `clone`.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let architectures = if cfg!(target_arch = "aarch64") {
        vec!["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    };
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM,
        "architectures": architectures, "syscalls": rules,
    });
    // The test below reads it for every capability; what cannot be read allows nothing.
    serde_json::from_value(profile).unwrap_or_default()
}

/// Read a profile in Docker's form: with conditions on capabilities and architectures, which are decided here, or as a
/// specification has it.
///
/// # Errors
/// It is no such profile.
pub fn read_profile(text: &str, capabilities: CapabilitySet) -> Result<LinuxSeccomp, Refusal> {
    let mut profile: Value = serde_json::from_str(text)?;
    let (arch, own) = match Arch::native() {
        Arch::X86_64 => ("amd64", "SCMP_ARCH_X86_64"),
        Arch::Aarch64 => ("arm64", "SCMP_ARCH_AARCH64"),
    };
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    if let Some(map) = profile.get("archMap").and_then(Value::as_array) {
        let mut all = vec![own.to_owned()];
        for entry in map.iter().filter(|entry| entry["architecture"] == own) {
            all.extend(strings(&entry["subArchitectures"]));
        }
        profile["architectures"] = json!(all);
    }
    let matches = |condition: &Value, every: bool| -> bool {
        let caps = strings(&condition["caps"]);
        let arches = strings(&condition["arches"]);
        let has = |name: &String| capabilities.contains(name);
        if every {
            // Included only where all of this holds. The least kernel that profiles name is older than ours.
            caps.iter().all(has) && (arches.is_empty() || arches.iter().any(|name| name == arch))
        } else {
            caps.iter().any(has) || arches.iter().any(|name| name == arch)
        }
    };
    let rules = profile["syscalls"].as_array().cloned().unwrap_or_default();
    let kept: Vec<Value> = rules
        .into_iter()
        .filter(|rule| matches(&rule["includes"], true) && !matches(&rule["excludes"], false))
        .map(|rule| {
            let mut names = strings(&rule["names"]);
            names.extend(rule["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned));
            let mut kept = json!({"names": names, "action": rule["action"]});
            if rule["args"].as_array().is_some_and(|args| !args.is_empty()) {
                kept["args"] = rule["args"].clone();
            }
            if rule["errnoRet"].is_u64() {
                kept["errnoRet"] = rule["errnoRet"].clone();
            }
            kept
        })
        .collect();
    let mut spec = json!({"defaultAction": profile["defaultAction"], "syscalls": kept});
    for key in ["defaultErrnoRet", "architectures", "flags"] {
        if let Some(value) = profile.get(key).filter(|value| !value.is_null()) {
            spec[key] = value.clone();
        }
    }
    Ok(serde_json::from_value(spec)?)
}

/// What the kernel does with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// Rules that look at arguments, in order, and what happens where none matches.
    Look(Vec<(Vec<Condition>, u32)>, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    argument: u8,
    operator: LinuxSeccompOperator,
    value: u64,
    /// For the masked comparison: `value` is the mask then.
    masked: u64,
}

/// Numbers from here on, up to the next range's start, have this verdict.
type Ranges = Vec<(u32, Verdict)>;

/// The mark of x32 calls.
const X32: u32 = 0x4000_0000;
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_X86: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARM: u32 = 0x4000_0028;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// The filter that the kernel loads.
///
/// # Errors
/// It asks for what we cannot do, or is too large.
pub fn compile(profile: &LinuxSeccomp, arch: Arch) -> Result<Vec<Instruction>, Refusal> {
    const LOAD: u16 = 0x20;
    let has = |wanted: SpecArch| profile.architectures().as_ref().is_none_or(|list| list.contains(&wanted));
    let (native, sibling) = match arch {
        Arch::X86_64 => ((AUDIT_X86_64, 0), has(SpecArch::ScmpArchX86).then_some((AUDIT_X86, 2))),
        Arch::Aarch64 => ((AUDIT_AARCH64, 1), has(SpecArch::ScmpArchArm).then_some((AUDIT_ARM, 3))),
    };
    let mut ranges = ranges(profile, native.1)?;
    if arch == Arch::X86_64 {
        if has(SpecArch::ScmpArchX32) {
            let shifted: Ranges = ranges.iter().map(|(from, verdict)| (from + X32, verdict.clone())).collect();
            ranges.extend(shifted);
        } else {
            ranges.push((X32, Verdict::Return(KILL_PROCESS)));
        }
        ranges.push((X32 << 1, Verdict::Return(KILL_PROCESS)));
        ranges = merged(ranges);
    }
    let mut program = vec![(LOAD, 0, 0, 4)];
    let native_tree = tree(&ranges);
    jump_if(&mut program, JUMP_EQUAL, native.0, native_tree.len() + 1);
    program.push((LOAD, 0, 0, 0));
    program.extend(native_tree);
    if let Some((audit, column)) = sibling {
        let tree = tree(&self::ranges(profile, column)?);
        jump_if(&mut program, JUMP_EQUAL, audit, tree.len() + 1);
        program.push((LOAD, 0, 0, 0));
        program.extend(tree);
    }
    // Another machine's calls: whoever makes them is up to no good.
    program.push((RETURN, 0, 0, KILL_PROCESS));
    const MOST: usize = 4096;
    if program.len() > MOST {
        return Err(Refusal::Size(program.len()));
    }
    Ok(program)
}

const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;

/// Go on if the comparison holds, else jump over so many instructions.
fn jump_if(program: &mut Vec<Instruction>, comparison: u16, operand: u32, over: usize) {
    if over < 256 {
        program.push((comparison, 0, over as u8, operand));
    } else {
        program.push((comparison, 1, 0, operand));
        program.push((JUMP, 0, 0, over as u32));
    }
}

/// What the profile says of each number of one machine.
fn ranges(profile: &LinuxSeccomp, column: usize) -> Result<Ranges, Refusal> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut rules: BTreeMap<u32, Vec<(Vec<Condition>, u32)>> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let verdict = action(rule.action(), rule.errno_ret())?;
        let alternatives = alternatives(rule)?;
        for name in rule.names() {
            let Ok(at) = SYSCALLS.binary_search_by_key(&name.as_str(), |(name, _)| name) else { continue };
            let Ok(number) = u32::try_from(SYSCALLS[at].1[column]) else { continue };
            let known = rules.entry(number).or_default();
            known.extend(alternatives.iter().map(|conditions| (conditions.clone(), verdict)));
        }
    }
    let newest = rules.keys().next_back().copied();
    let mut ranges = vec![(0, Verdict::Return(default))];
    for (number, mut rules) in rules {
        // What has no conditions ends the list.
        let certain = rules.iter().position(|(conditions, _)| conditions.is_empty());
        let rest = certain.map_or(default, |at| rules[at].1);
        rules.truncate(certain.unwrap_or(rules.len()));
        let verdict = if rules.is_empty() { Verdict::Return(rest) } else { Verdict::Look(rules, rest) };
        ranges.push((number, verdict));
        ranges.push((number + 1, Verdict::Return(default)));
    }
    if let Some(newest) = newest.filter(|newest| *newest < 0xf_0000 && default == ERRNO | EPERM) {
        ranges.push((newest + 1, Verdict::Return(ERRNO | ENOSYS)));
    }
    Ok(merged(ranges))
}

/// Of ranges that start at the same number the last counts; neighbours alike become one.
fn merged(ranges: Ranges) -> Ranges {
    let mut out: Ranges = Vec::new();
    for (from, verdict) in ranges {
        while out.last().is_some_and(|(known, _)| *known >= from) {
            out.pop();
        }
        if out.last().is_none_or(|(_, known)| *known != verdict) {
            out.push((from, verdict));
        }
    }
    out
}

/// A rule's conditions; one argument compared twice means either comparison, as libseccomp's users have it.
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Refusal> {
    let mut conditions = Vec::new();
    for one in rule.args().iter().flatten() {
        conditions.push(condition(one)?);
    }
    let twice = conditions
        .iter()
        .enumerate()
        .any(|(at, one)| conditions[..at].iter().any(|before| before.argument == one.argument));
    Ok(if twice { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

fn condition(one: &LinuxSeccompArg) -> Result<Condition, Refusal> {
    let argument = u8::try_from(one.index()).ok().filter(|at| *at < 6).ok_or(Refusal::Argument(one.index()))?;
    Ok(Condition { argument, operator: one.op(), value: one.value(), masked: one.value_two().unwrap_or(0) })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Refusal> {
    use LinuxSeccompAction as A;
    let data = errno.unwrap_or(EPERM) & 0xffff;
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => KILL_THREAD,
        A::ScmpActKillProcess => KILL_PROCESS,
        A::ScmpActTrap => TRAP,
        A::ScmpActErrno => ERRNO | data,
        A::ScmpActTrace => TRACE | data,
        A::ScmpActLog => LOG,
        A::ScmpActAllow => ALLOW,
        A::ScmpActNotify => return Err(Refusal::Action("SCMP_ACT_NOTIFY".to_owned())),
    })
}

/// Halve the ranges until one is left.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![(RETURN, 0, 0, KILL_PROCESS)],
        [(_, Verdict::Return(value))] => vec![(RETURN, 0, 0, *value)],
        [(_, Verdict::Look(rules, rest))] => look(rules, *rest),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_tree, high_tree) = (tree(low), tree(high));
            let mut out = Vec::with_capacity(low_tree.len() + high_tree.len() + 2);
            jump_if(&mut out, JUMP_GREATER_EQUAL, high[0].0, high_tree.len());
            out.extend(high_tree);
            out.extend(low_tree);
            out
        }
    }
}

/// Where a comparison leads.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    /// The condition holds already: over so many instructions, which are the rest of it.
    Holds(u8),
    Fails,
}

/// Rules one after the other; each returns, or falls to the next.
fn look(rules: &[(Vec<Condition>, u32)], rest: u32) -> Vec<Instruction> {
    let mut out = Vec::new();
    for (conditions, verdict) in rules {
        let mut code: Vec<(Instruction, To, To)> = Vec::new();
        for condition in conditions {
            compare(&mut code, condition);
        }
        let length = code.len();
        for (at, ((code, _, _, operand), yes, no)) in code.into_iter().enumerate() {
            let offset = |to: To| match to {
                To::Next => 0,
                To::Holds(over) => over,
                // Over the rest of the rule and its return.
                To::Fails => (length - at) as u8,
            };
            out.push((code, offset(yes), offset(no), operand));
        }
        out.push((RETURN, 0, 0, *verdict));
    }
    out.push((RETURN, 0, 0, rest));
    out
}

/// One condition: it goes on where the condition holds. Arguments are 64 bits, compared by halves.
fn compare(code: &mut Vec<(Instruction, To, To)>, condition: &Condition) {
    use LinuxSeccompOperator as Op;
    const LOAD: u16 = 0x20;
    const AND: u16 = 0x54;
    let low_at = 16 + 8 * u32::from(condition.argument);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(condition.value);
    let plain = |instruction| (instruction, To::Next, To::Next);
    let load = |at: u32| plain((LOAD, 0, 0, at));
    let test = |comparison: u16, operand: u32, yes: To, no: To| ((comparison, 0, 0, operand), yes, no);
    match condition.operator {
        Op::ScmpCmpEq => code.extend([
            load(low_at + 4),
            test(JUMP_EQUAL, high, To::Next, To::Fails),
            load(low_at),
            test(JUMP_EQUAL, low, To::Next, To::Fails),
        ]),
        Op::ScmpCmpNe => code.extend([
            load(low_at + 4),
            test(JUMP_EQUAL, high, To::Next, To::Holds(2)),
            load(low_at),
            test(JUMP_EQUAL, low, To::Fails, To::Next),
        ]),
        Op::ScmpCmpGe | Op::ScmpCmpGt => {
            let last = if condition.operator == Op::ScmpCmpGt { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            code.extend([
                load(low_at + 4),
                test(JUMP_GREATER, high, To::Holds(3), To::Next),
                test(JUMP_EQUAL, high, To::Next, To::Fails),
                load(low_at),
                test(last, low, To::Next, To::Fails),
            ]);
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            let last = if condition.operator == Op::ScmpCmpLe { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            code.extend([
                load(low_at + 4),
                test(JUMP_GREATER, high, To::Fails, To::Next),
                test(JUMP_EQUAL, high, To::Next, To::Holds(2)),
                load(low_at),
                test(last, low, To::Fails, To::Next),
            ]);
        }
        Op::ScmpCmpMaskedEq => {
            let (mask_high, mask_low) = (high, low);
            let (high, low) = halves(condition.masked);
            code.extend([
                load(low_at + 4),
                plain((AND, 0, 0, mask_high)),
                test(JUMP_EQUAL, high, To::Next, To::Fails),
                load(low_at),
                plain((AND, 0, 0, mask_low)),
                test(JUMP_EQUAL, low, To::Next, To::Fails),
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The call as the kernel shows it to a filter.
    #[derive(Clone, Copy, Debug)]
    struct Data {
        number: u32,
        arch: u32,
        arguments: [u64; 6],
    }

    impl Data {
        fn word(&self, at: u32) -> u32 {
            match at {
                0 => self.number,
                4 => self.arch,
                at => {
                    let value = self.arguments[(at as usize - 16) / 8];
                    if at % 8 == 0 { value as u32 } else { (value >> 32) as u32 }
                }
            }
        }
    }

    /// What the kernel does with a program, and after how many instructions.
    fn run(program: &[Instruction], data: &Data) -> (u32, usize) {
        let (mut at, mut word) = (0, 0);
        for steps in 1.. {
            let (code, yes, no, operand) = program[at];
            at += 1;
            let holds = match code {
                0x20 => {
                    word = data.word(operand);
                    continue;
                }
                0x54 => {
                    word &= operand;
                    continue;
                }
                JUMP => {
                    at += operand as usize;
                    continue;
                }
                RETURN => return (operand, steps),
                JUMP_EQUAL => word == operand,
                JUMP_GREATER => word > operand,
                JUMP_GREATER_EQUAL => word >= operand,
                other => panic!("no such instruction: {other:#x}"),
            };
            at += usize::from(if holds { yes } else { no });
        }
        unreachable!()
    }

    /// What a profile means, word for word.
    fn meant(profile: &LinuxSeccomp, data: &Data) -> u32 {
        let column = match data.arch {
            AUDIT_X86_64 => 0,
            AUDIT_X86 => 2,
            _ => return KILL_PROCESS,
        };
        let allowed = profile.architectures().as_ref().unwrap();
        if column == 2 && !allowed.contains(&SpecArch::ScmpArchX86) {
            return KILL_PROCESS;
        }
        let mut number = data.number;
        if column == 0 && number >= X32 {
            if !allowed.contains(&SpecArch::ScmpArchX32) || number >= 2 * X32 {
                return KILL_PROCESS;
            }
            number -= X32;
        }
        let names: Vec<&str> = SYSCALLS
            .iter()
            .filter(|(_, numbers)| i64::from(numbers[column]) == i64::from(number))
            .map(|(name, _)| *name)
            .collect();
        let mut newest = None;
        for rule in profile.syscalls().iter().flatten() {
            for name in rule.names() {
                if let Some((_, numbers)) = SYSCALLS.iter().find(|(known, _)| known == name) {
                    newest = newest.max(u32::try_from(numbers[column]).ok());
                }
            }
            if !rule.names().iter().any(|name| names.contains(&name.as_str())) {
                continue;
            }
            let conditions: Vec<Condition> = rule.args().iter().flatten().map(|one| condition(one).unwrap()).collect();
            let holds = |one: &Condition| {
                use LinuxSeccompOperator as Op;
                let value = data.arguments[usize::from(one.argument)];
                match one.operator {
                    Op::ScmpCmpEq => value == one.value,
                    Op::ScmpCmpNe => value != one.value,
                    Op::ScmpCmpGe => value >= one.value,
                    Op::ScmpCmpGt => value > one.value,
                    Op::ScmpCmpLe => value <= one.value,
                    Op::ScmpCmpLt => value < one.value,
                    Op::ScmpCmpMaskedEq => value & one.value == one.masked,
                }
            };
            let mut seen: Vec<u8> = conditions.iter().map(|one| one.argument).collect();
            seen.sort_unstable();
            let twice = seen.windows(2).any(|pair| pair[0] == pair[1]);
            let matches = if twice { conditions.iter().any(holds) } else { conditions.iter().all(holds) };
            if matches {
                return action(rule.action(), rule.errno_ret()).unwrap();
            }
        }
        let default = action(profile.default_action(), profile.default_errno_ret()).unwrap();
        // Newer than every rule of the whole profile.
        let newest = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).fold(newest, |newest, name| {
            let known = SYSCALLS.iter().find(|(known, _)| known == name);
            newest.max(known.and_then(|(_, numbers)| u32::try_from(numbers[column]).ok()))
        });
        match newest {
            Some(newest) if number > newest && default == ERRNO | EPERM => ERRNO | ENOSYS,
            _ => default,
        }
    }

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4_u64,
            Just(CLONE_NEW),
            Just(u64::from(u32::MAX)),
            any::<u64>(),
            Just(1 << 32),
            Just((1 << 32) + 1)
        ]
    }

    fn rule() -> impl Strategy<Value = Value> {
        let names = prop::collection::vec(0..SYSCALLS.len(), 1..6);
        let operators = prop::sample::select(vec!["EQ", "NE", "GE", "GT", "LE", "LT", "MASKED_EQ"]);
        let args = prop::collection::vec((0..6_usize, value(), value(), operators), 0..3);
        let actions = prop::sample::select(vec!["ALLOW", "ERRNO", "KILL_PROCESS", "LOG", "TRAP"]);
        (names, args, actions).prop_map(|(names, args, action)| {
            let names: Vec<&str> = names.into_iter().map(|at| SYSCALLS[at].0).collect();
            let args: Vec<Value> = args
                .into_iter()
                .map(|(index, value, two, operator)| {
                    json!({"index": index, "value": value, "valueTwo": two & value, "op": format!("SCMP_CMP_{operator}")})
                })
                .collect();
            json!({"names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": 9, "args": args})
        })
    }

    fn profile() -> impl Strategy<Value = LinuxSeccomp> {
        let architectures = prop::sample::subsequence(vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=2);
        let default = prop::sample::select(vec!["ERRNO", "ALLOW", "KILL"]);
        (prop::collection::vec(rule(), 0..40), architectures, default).prop_map(
            |(rules, mut architectures, default)| {
                architectures.push("SCMP_ARCH_X86_64");
                let profile = json!({
                    "defaultAction": format!("SCMP_ACT_{default}"), "architectures": architectures, "syscalls": rules,
                });
                serde_json::from_value(profile).unwrap()
            },
        )
    }

    fn data() -> impl Strategy<Value = Data> {
        let number = prop_oneof![0..480_u32, (0..480_u32).prop_map(|n| n + X32), any::<u32>()];
        let arch = prop::sample::select(vec![AUDIT_X86_64, AUDIT_X86, AUDIT_ARM]);
        (number, arch, prop::array::uniform6(value())).prop_map(|(number, arch, arguments)| Data {
            number,
            arch,
            arguments,
        })
    }

    proptest! {
        #[test]
        fn a_compiled_profile_does_what_it_means(profile in profile(), calls in prop::collection::vec(data(), 50)) {
            let program = compile(&profile, Arch::X86_64).unwrap();
            for call in &calls {
                prop_assert_eq!(run(&program, call).0, meant(&profile, call), "{:?}", call);
            }
        }
    }

    #[test]
    fn the_default_allows_and_forbids_what_docker_says() {
        let call = |name: &str, arguments: [u64; 6]| {
            let at = SYSCALLS.binary_search_by_key(&name, |(name, _)| name).unwrap();
            Data { number: SYSCALLS[at].1[0] as u32, arch: AUDIT_X86_64, arguments }
        };
        let check = |capabilities: &[&str], name: &str, first: u64, expected: u32| {
            let set = capabilities.iter().fold(0, |bits, name| bits | CapabilitySet::named(name).unwrap().0);
            let program = compile(&default_profile(CapabilitySet(set)), Arch::X86_64).unwrap();
            let (verdict, steps) = run(&program, &call(name, [first, 0, 0, 0, 0, 0]));
            assert_eq!(verdict, expected, "{capabilities:?} {name} {first:#x}");
            assert!(steps < 40, "{name} takes {steps} instructions");
        };
        if Arch::native() != Arch::X86_64 {
            return;
        }
        check(&[], "read", 0, ALLOW);
        check(&[], "mseal", 0, ALLOW);
        check(&[], "mount", 0, ERRNO | EPERM);
        check(&["SYS_ADMIN"], "mount", 0, ALLOW);
        check(&[], "clone", 0x1200011, ALLOW);
        check(&[], "clone", 0x1000_0000, ERRNO | EPERM);
        check(&["SYS_ADMIN"], "clone", 0x1000_0000, ALLOW);
        check(&[], "clone3", 0, ERRNO | ENOSYS);
        check(&["SYS_ADMIN"], "clone3", 0, ALLOW);
        check(&[], "socket", 40, ERRNO | EPERM);
        check(&[], "socket", 2, ALLOW);
        check(&[], "personality", 8, ALLOW);
        check(&[], "personality", 9, ERRNO | EPERM);
        check(&[], "io_uring_setup", 0, ERRNO | EPERM);
        check(&[], "chroot", 0, ERRNO | EPERM);
        check(&["SYS_CHROOT"], "chroot", 0, ALLOW);
        check(&["SYSLOG"], "syslog", 0, ALLOW);
        check(&[], "bpf", 0, ERRNO | EPERM);
        let program = compile(&default_profile(CapabilitySet::default()), Arch::X86_64).unwrap();
        let newer = Data { number: 600, arch: AUDIT_X86_64, arguments: [0; 6] };
        assert_eq!(run(&program, &newer).0, ERRNO | ENOSYS);
        assert!(program.len() < 1000, "{} instructions", program.len());
    }

    #[test]
    fn every_allowed_name_is_a_system_call_and_both_machines_have_a_filter() {
        let names =
            ALLOWED.split_whitespace().chain(WITH_CAPABILITY.iter().flat_map(|(_, names)| names.split_whitespace()));
        for name in names {
            assert!(SYSCALLS.binary_search_by_key(&name, |(known, _)| known).is_ok(), "{name}");
        }
        assert!(SYSCALLS.is_sorted_by_key(|(name, _)| *name));
        for bits in [0, CapabilitySet::ALL.0] {
            let profile = default_profile(CapabilitySet(bits));
            assert!(profile.syscalls().as_ref().unwrap().len() > 8);
            for arch in [Arch::X86_64, Arch::Aarch64] {
                compile(&profile, arch).unwrap();
            }
        }
    }

    #[test]
    fn a_profile_in_dockers_form_is_decided_by_capabilities_and_machine() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["swapcontext"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"name": "write", "action": "SCMP_ACT_ALLOW"}
            ]
        }"#;
        let names = |set: CapabilitySet| -> Vec<String> {
            let profile = read_profile(text, set).unwrap();
            profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
        };
        assert_eq!(names(CapabilitySet::default()), ["read", "umount2", "ptrace", "write"]);
        assert_eq!(names(CapabilitySet::named("SYS_ADMIN").unwrap()), ["read", "mount", "ptrace", "write"]);
        assert!(matches!(read_profile("{", CapabilitySet::default()), Err(Refusal::Json(_))));
        let notify = r#"{"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []}"#;
        let profile = read_profile(notify, CapabilitySet::default()).unwrap();
        assert!(matches!(compile(&profile, Arch::X86_64), Err(Refusal::Action(_))));
    }
}
