//! What Linux can do: the home of syscalls, netlink and `unsafe`.

pub mod cgroup;
pub mod device_filter;
