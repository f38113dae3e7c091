//! What the new process does before it becomes the container's (or a command's): all of it with one thread, nothing
//! shared with the shim, and every step failing closed. It tells the shim how it goes through a socket that closes when
//! the program executes.

use crate::fail::{At, failure};
use crate::{mounts, sys};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use shim_protocol::frame;
use shim_protocol::launch::{Cgroup, Command, Failure, FailureKind, Launch, Namespace, RLIMITS, Step};
use shim_protocol::{Size, transport};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The name that a container sees of our init, as it sees Docker's.
pub const INIT: &str = "/sbin/docker-init";

/// What a child tells the shim.
pub enum Report {
    Warning(String),
    /// With the terminal's master and slave.
    Terminal,
    /// It waits for its user namespace's maps.
    WantsMaps,
    Failed(Failure),
}

impl Report {
    /// As the socket carries it: the four kinds are told apart by which field is there.
    fn encode(&self) -> (Option<String>, u8, Option<Failure>) {
        match self {
            Report::Warning(text) => (Some(text.clone()), 0, None),
            Report::Terminal => (None, 1, None),
            Report::WantsMaps => (None, 2, None),
            Report::Failed(failure) => (None, 3, Some(failure.clone())),
        }
    }

    pub fn decode(frame: &frame::Frame) -> Option<Report> {
        match frame.value::<(Option<String>, u8, Option<Failure>)>().ok()? {
            (Some(text), 0, None) => Some(Report::Warning(text)),
            (None, 1, None) => Some(Report::Terminal),
            (None, 2, None) => Some(Report::WantsMaps),
            (None, 3, Some(failure)) => Some(Report::Failed(failure)),
            _ => None,
        }
    }
}

/// The child's end of the socket.
pub struct Reporter(pub OwnedFd);

impl Reporter {
    pub fn say(&self, report: &Report, descriptors: &[BorrowedFd<'_>]) {
        let mut bytes = Vec::new();
        if frame::encode_value(&mut bytes, &report.encode(), descriptors.len()).is_ok() {
            // A report is small and the socket empty: it fits, or the shim is gone and nobody listens.
            let _ = transport::send(&self.0, &bytes, descriptors);
        }
    }

    fn warn(&self, text: String) {
        self.say(&Report::Warning(text), &[]);
    }
}

/// A process's stdio, opened by the shim; a terminal is opened by the child instead.
pub struct Pipes {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What the shim passes on by forking.
pub struct Inherited<'a> {
    pub reporter: Reporter,
    pub pipes: Option<&'a Pipes>,
    /// To join: the namespaces that are not joined by the shim for its children.
    pub net: Option<BorrowedFd<'a>>,
    pub ipc: Option<BorrowedFd<'a>>,
    pub uts: Option<BorrowedFd<'a>>,
    pub cgroup: Option<BorrowedFd<'a>>,
    pub overlay: Option<OwnedFd>,
    pub joined_shm: Option<&'a OwnedFd>,
    /// The shim's own program, to be the container's init.
    pub program: BorrowedFd<'a>,
    pub fail_at: Option<Step>,
}

impl Inherited<'_> {
    fn keep_only_these(&self) {
        let mut keep = vec![self.reporter.0.as_raw_fd(), self.program.as_raw_fd()];
        if let Some(pipes) = self.pipes {
            keep.extend([pipes.stdin.as_raw_fd(), pipes.stdout.as_raw_fd(), pipes.stderr.as_raw_fd()]);
        }
        keep.extend([self.net, self.ipc, self.uts, self.cgroup].iter().flatten().map(AsRawFd::as_raw_fd));
        keep.extend(self.overlay.iter().chain(self.joined_shm).map(AsRawFd::as_raw_fd));
        sys::close_all_but(&keep);
    }

    fn reached(&self, step: Step) -> Result<(), Failure> {
        if cfg!(debug_assertions) && self.fail_at == Some(step) {
            return Err(failure(step, Errno::CANCELED, "as a test asked"));
        }
        Ok(())
    }
}

/// Become the container's process.
pub fn become_container(launch: &Launch, mut inherited: Inherited<'_>) -> ! {
    prepare();
    let Err(failure) = container(launch, &mut inherited);
    inherited.reporter.say(&Report::Failed(failure), &[]);
    sys::exit_now(125)
}

/// Become a command inside a running container, behind this pidfd.
pub fn become_command(
    command: &Command,
    tty: bool,
    size: Option<Size>,
    target: BorrowedFd<'_>,
    user_namespace: bool,
    cgroup: &Cgroup,
    inherited: Inherited<'_>,
) -> ! {
    prepare();
    let Err(failure) = inside(command, tty, size, target, user_namespace, cgroup, &inherited);
    inherited.reporter.say(&Report::Failed(failure), &[]);
    sys::exit_now(125)
}

fn prepare() {
    sys::reset_signals();
    // A shim that dies during the launch takes its half-made child along.
    let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as _);
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0);
    let _ = rustix::process::setsid();
    let _ = rustix::process::umask(Mode::empty());
}

enum Never {}

fn container(launch: &Launch, inherited: &mut Inherited<'_>) -> Result<Never, Failure> {
    let command = &launch.command;
    inherited.keep_only_these();
    inherited.reached(Step::Cgroup)?;
    enter_cgroup_v1(&launch.cgroup)?;
    inherited.reached(Step::OomScore)?;
    set_oom_score(command, &inherited.reporter)?;
    if launch.namespaces.user.is_some() {
        inherited.reached(Step::IdMaps)?;
        inherited.reporter.say(&Report::WantsMaps, &[]);
        let mut answer = [0];
        rustix::io::retry_on_intr(|| rustix::io::read(&inherited.reporter.0, &mut answer)).at(Step::IdMaps, "")?;
    }
    inherited.reached(Step::Namespaces)?;
    for (fd, kind, name) in [
        (inherited.net, libc::CLONE_NEWNET, "network"),
        (inherited.ipc, libc::CLONE_NEWIPC, "ipc"),
        (inherited.uts, libc::CLONE_NEWUTS, "uts"),
        (inherited.cgroup, libc::CLONE_NEWCGROUP, "cgroup"),
    ] {
        if let Some(fd) = fd {
            sys::setns(fd, kind).at(Step::Namespaces, name)?;
        }
    }
    if launch.namespaces.cgroup == Namespace::New {
        sys::unshare(libc::CLONE_NEWCGROUP).at(Step::Namespaces, "cgroup")?;
    }
    inherited.reached(Step::Propagation)?;
    mounts::separate(launch.root.propagation)?;
    inherited.reached(Step::AttachRoot)?;
    let root = mounts::attach_root(&launch.root, inherited.overlay.take())?;
    let root = root.as_fd();
    inherited.reached(Step::Mounts)?;
    // Until here with the host's root's eyes, to which the sources belong; from here on as the container's root, to
    // which everything made belongs.
    let sources = mounts::sources(&launch.mounts)?;
    if launch.namespaces.user.is_some() {
        become_root_here().at(Step::IdMaps, "")?;
    }
    mounts::mount_all(root, &launch.mounts, sources, inherited.joined_shm)?;
    inherited.reached(Step::Devices)?;
    mounts::devices(root, &launch.devices, &launch.mounts)?;
    inherited.reached(Step::Terminal)?;
    let terminal = if launch.stdio.tty {
        let (master, slave) = mounts::terminal(root, true).at(Step::Terminal, "")?;
        offer_terminal(&inherited.reporter, &master, &slave, launch.stdio.size);
        drop(master);
        Some(slave)
    } else {
        None
    };
    inherited.reached(Step::WorkingDirectory)?;
    mounts::place(root, &command.cwd, mounts::Make::Directory).at(Step::WorkingDirectory, &command.cwd)?;
    inherited.reached(Step::Hostname)?;
    if let Some(name) = &launch.hostname {
        rustix::system::sethostname(name.as_bytes()).at(Step::Hostname, name)?;
    }
    if let Some(name) = &launch.domainname {
        rustix::system::setdomainname(name.as_bytes()).at(Step::Hostname, name)?;
    }
    inherited.reached(Step::Sysctls)?;
    mounts::sysctls(root, &launch.sysctls)?;
    inherited.reached(Step::MaskedPaths)?;
    mounts::mask(root, &launch.masked_paths)?;
    inherited.reached(Step::ReadonlyPaths)?;
    mounts::make_readonly(root, &launch.readonly_paths)?;
    inherited.reached(Step::ReadonlyRoot)?;
    if launch.root.readonly {
        mounts::make_root_readonly(root)?;
    }
    inherited.reached(Step::Pivot)?;
    mounts::pivot(root, launch.root.propagation)?;
    finish(command, terminal, launch.init, inherited)
}

fn inside(
    command: &Command,
    tty: bool,
    size: Option<Size>,
    target: BorrowedFd<'_>,
    user_namespace: bool,
    cgroup: &Cgroup,
    inherited: &Inherited<'_>,
) -> Result<Never, Failure> {
    let target = rustix::io::fcntl_dupfd_cloexec(target, 3).at(Step::Namespaces, "")?;
    enter_cgroup_v1(cgroup)?;
    set_oom_score(command, &inherited.reporter)?;
    let user = if user_namespace { libc::CLONE_NEWUSER } else { 0 };
    let kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP | user;
    // Nothing of the shim's may be within reach once the container can see this process.
    inherited.keep_only_these_and(&target);
    sys::setns(&target, kinds).at(Step::Namespaces, "of the container")?;
    drop(target);
    if user_namespace {
        become_root_here().at(Step::Namespaces, "user")?;
    }
    let terminal = if tty {
        let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Terminal, "")?;
        let (master, slave) = mounts::terminal(root.as_fd(), false).at(Step::Terminal, "")?;
        offer_terminal(&inherited.reporter, &master, &slave, size);
        Some(slave)
    } else {
        None
    };
    finish(command, terminal, false, inherited)
}

impl Inherited<'_> {
    fn keep_only_these_and(&self, one: &OwnedFd) {
        let mut keep = vec![self.reporter.0.as_raw_fd(), self.program.as_raw_fd(), one.as_raw_fd()];
        if let Some(pipes) = self.pipes {
            keep.extend([pipes.stdin.as_raw_fd(), pipes.stdout.as_raw_fd(), pipes.stderr.as_raw_fd()]);
        }
        sys::close_all_but(&keep);
    }
}

fn offer_terminal(reporter: &Reporter, master: &OwnedFd, slave: &OwnedFd, size: Option<Size>) {
    if let Some(size) = size {
        let _ = set_size(master, size);
    }
    reporter.say(&Report::Terminal, &[master.as_fd(), slave.as_fd()]);
}

pub fn set_size(terminal: impl AsFd, size: Size) -> Result<(), Errno> {
    let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

fn become_root_here() -> Result<(), Errno> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Writing to `cgroup.procs` waits for every CPU, 5 to 17 ms; a process of one thread may write 0 to `tasks`.
fn enter_cgroup_v1(cgroup: &Cgroup) -> Result<(), Failure> {
    for directory in &cgroup.v1 {
        let enter = || {
            let tasks = openat(CWD, directory.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&tasks, b"0").map(|_| ())
        };
        enter().at(Step::Cgroup, directory.display().to_string())?;
    }
    Ok(())
}

fn set_oom_score(command: &Command, reporter: &Reporter) -> Result<(), Failure> {
    let Some(score) = command.oom_score_adj else { return Ok(()) };
    let write = || {
        let file = openat(CWD, "/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, score.to_string().as_bytes()).map(|_| ())
    };
    match write() {
        Err(Errno::ACCESS | Errno::PERM) => {
            reporter.warn(format!("the OOM score cannot be lowered to {score} here, and is left as it is"));
            Ok(())
        }
        other => other.at(Step::OomScore, score.to_string()),
    }
}

fn set_rlimits(command: &Command, reporter: &Reporter) -> Result<(), Failure> {
    for limit in &command.rlimits {
        match sys::set_rlimit(limit.resource, limit.soft, limit.hard) {
            Err(Errno::PERM) => {
                let (_, most) = sys::rlimit(limit.resource).at(Step::Rlimits, limit.resource.to_string())?;
                let (soft, hard) = (limit.soft.min(most), limit.hard.min(most));
                sys::set_rlimit(limit.resource, soft, hard).at(Step::Rlimits, limit.resource.to_string())?;
                let name = rlimit_name(limit.resource);
                reporter.warn(format!("the limit {name} cannot be raised to {} here, and is {hard}", limit.hard));
            }
            other => other.at(Step::Rlimits, rlimit_name(limit.resource))?,
        }
    }
    Ok(())
}

fn rlimit_name(resource: u32) -> String {
    RLIMITS.get(resource as usize).map_or_else(|| resource.to_string(), |name| (*name).to_owned())
}

/// From here on nothing of the host is reachable: what is left is who the process is, and the program.
fn finish(
    command: &Command,
    terminal: Option<OwnedFd>,
    init: bool,
    inherited: &Inherited<'_>,
) -> Result<Never, Failure> {
    use rustix::fs::{Gid, Uid};
    let caps = &command.capabilities;
    // To the kernel -1 is 'unchanged': the process would stay root.
    if [command.uid, command.gid].iter().chain(&command.groups).any(|id| *id > i32::MAX as u32) {
        return Err(failure(Step::Identity, Errno::INVAL, "uids and gids must be in range 0-2147483647"));
    }
    // No keys of the host's: where the kernel has none, or no room, there is nothing to separate from.
    let _ = sys::new_session_keyring();
    match (&terminal, inherited.pipes) {
        (Some(slave), _) => {
            mounts::own_terminal(slave, command.uid).at(Step::Stdio, "the terminal")?;
            for number in 0..3 {
                sys::become_stdio(slave, number).at(Step::Stdio, "the terminal")?;
            }
            rustix::process::ioctl_tiocsctty(slave).at(Step::Terminal, "as the controlling one")?;
        }
        (None, Some(pipes)) => {
            for (number, fd) in [&pipes.stdin, &pipes.stdout, &pipes.stderr].into_iter().enumerate() {
                mounts::own(fd, command.uid).at(Step::Stdio, number.to_string())?;
                sys::become_stdio(fd, number as i32).at(Step::Stdio, number.to_string())?;
            }
        }
        (None, None) => return Err(failure(Step::Stdio, Errno::BADF, "")),
    }
    drop(terminal);
    inherited.reached(Step::Rlimits)?;
    set_rlimits(command, &inherited.reporter)?;
    if command.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(Step::Capabilities, "no_new_privs")?;
    }
    inherited.reached(Step::Bounding)?;
    for capability in 0..64 {
        if caps.bounding & (1 << capability) == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
                // The kernel knows fewer.
                Err(Errno::INVAL) => break,
                other => other.at(Step::Bounding, capability.to_string())?,
            }
        }
    }
    inherited.reached(Step::ChangeDirectory)?;
    // Root may enter what the user may not, and the other way round on network file systems: either is enough.
    let entered = rustix::process::chdir(&*command.cwd);
    inherited.reached(Step::Identity)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).at(Step::Identity, "")?;
    let groups: Vec<Gid> = command.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        // A user namespace whose owner may not drop groups.
        Err(Errno::PERM) if groups.is_empty() => {}
        other => other.at(Step::Identity, "the groups")?,
    }
    let (gid, uid) = (Gid::from_raw(command.gid), Uid::from_raw(command.uid));
    set_thread_res_gid(gid, gid, gid).at(Step::Identity, format!("to group {}", command.gid))?;
    set_thread_res_uid(uid, uid, uid).at(Step::Identity, format!("to {}", command.uid))?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0).at(Step::Identity, "")?;
    if entered.is_err() {
        rustix::process::chdir(&*command.cwd).at(Step::ChangeDirectory, &command.cwd)?;
    }
    // A directory outside the root that was left open by someone would be an exit from it.
    let here = rustix::process::getcwd(Vec::new()).at(Step::ChangeDirectory, &command.cwd)?;
    if !here.to_bytes().starts_with(b"/") {
        return Err(failure(Step::ChangeDirectory, Errno::XDEV, &command.cwd));
    }
    inherited.reached(Step::Lookup)?;
    let program = lookup(command)?;
    let strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
        list.iter().map(|s| CString::new(s.as_str()).map_err(|_| failure(Step::Execute, Errno::INVAL, s))).collect()
    };
    let mut args = strings(&command.args)?;
    let env = strings(&command.env)?;
    if init {
        // It finds the program as we have found it: its command line is as users know it.
        args.splice(0..0, [CString::from(c"/sbin/docker-init"), CString::from(c"--")]);
    }
    let umask = Mode::from_raw_mode(command.umask.unwrap_or(0o022));
    rustix::process::umask(umask);
    inherited.reached(Step::Seccomp)?;
    if let Some(filter) = command.seccomp.as_ref().filter(|_| !command.no_new_privileges) {
        // Without no_new_privs the kernel asks for CAP_SYS_ADMIN; a change of user has taken it out of 'effective'.
        let permitted = sys::permitted_capabilities().at(Step::Seccomp, "")?;
        sys::set_capabilities(permitted, permitted, 0).at(Step::Seccomp, "")?;
        sys::load_seccomp(filter).at(Step::Seccomp, "")?;
    }
    inherited.reached(Step::Capabilities)?;
    sys::set_capabilities(caps.effective, caps.permitted, caps.inheritable).at(Step::Capabilities, "")?;
    for capability in 0..64 {
        if caps.ambient & (1 << capability) != 0 {
            sys::raise_ambient(capability).at(Step::Capabilities, format!("ambient {capability}"))?;
        }
    }
    sys::prctl(libc::PR_SET_PDEATHSIG, 0).at(Step::Execute, "")?;
    sys::close_on_exec();
    if let Some(filter) = command.seccomp.as_ref().filter(|_| command.no_new_privileges) {
        sys::load_seccomp(filter).at(Step::Seccomp, "")?;
    }
    inherited.reached(Step::Execute)?;
    let errno = if init {
        sys::execute_descriptor(inherited.program, &args, &env)
    } else {
        sys::execute(&program, &args, &env)
    };
    let name = command.args.first().cloned().unwrap_or_default();
    Err(Failure { step: Step::Execute, kind: kind_of(errno), errno: errno.raw_os_error(), about: name })
}

fn kind_of(errno: Errno) -> FailureKind {
    match errno {
        Errno::NOENT => FailureKind::NotFound,
        Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR | Errno::NOTDIR | Errno::PERM | Errno::LOOP | Errno::TXTBSY => {
            FailureKind::NotExecutable
        }
        _ => FailureKind::Other,
    }
}

/// Find the program as a shell would, by the process's own PATH.
fn lookup(command: &Command) -> Result<CString, Failure> {
    let Some(name) = command.args.first() else {
        return Err(failure(Step::Lookup, Errno::INVAL, "no command specified"));
    };
    let refuse = |errno: Errno| Failure {
        step: Step::Lookup,
        kind: kind_of(errno),
        errno: errno.raw_os_error(),
        about: name.clone(),
    };
    let terminated = |path: String| CString::new(path).map_err(|_| refuse(Errno::INVAL));
    if name.contains('/') {
        check_executable(name).map_err(refuse)?;
        return terminated(name.clone());
    }
    if name.is_empty() {
        return Err(refuse(Errno::NOENT));
    }
    let path = command.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    search(name, path).map_err(refuse).and_then(terminated)
}

/// The first that can be executed of a program's places in a PATH.
pub fn search(name: &str, path: &str) -> Result<String, Errno> {
    let mut why = Errno::NOENT;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match check_executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => {}
            Err(errno) => why = errno,
        }
    }
    Err(why)
}

fn check_executable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)
}
