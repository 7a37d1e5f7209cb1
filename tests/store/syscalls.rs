//! Sees the system calls of a thread and of all that it starts, before they are made, and lets them go or fails them.
//!
//! The kernel tells (`seccomp_unotify(2)`): no tracer, no privilege, no change of what is tested. A call that is told
//! waits until it is judged, so what a judge reads from a file is what was written before that call.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// The calls by which something gets to a disk.
pub(crate) const WRITES: [libc::c_long; 4] =
    [libc::SYS_pwrite64, libc::SYS_fdatasync, libc::SYS_fsync, libc::SYS_sync_file_range];

/// A call on a descriptor that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Which one: `libc::SYS_…`.
    pub(crate) number: libc::c_long,
    /// The file.
    pub(crate) path: PathBuf,
}

impl Call {
    /// Whether it makes this file durable.
    pub(crate) fn syncs(&self, file: &Path) -> bool {
        [libc::SYS_fdatasync, libc::SYS_fsync].contains(&self.number) && self.path == file
    }

    /// Whether it writes to this file.
    pub(crate) fn writes(&self, file: &Path) -> bool {
        self.number == libc::SYS_pwrite64 && self.path == file
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Go,
    /// It is not made, and fails with EIO.
    Fail,
}

/// Runs `body` in a thread of its own; each of its `calls`, and of the threads that it starts, is judged first. Ends
/// when `body` has ended. Once in a process: threads that outlive `body` cannot make those calls any more.
pub(crate) fn watched<T: Send>(
    calls: &[libc::c_long],
    mut judge: impl FnMut(&Call) -> Verdict,
    body: impl FnOnce() -> T + Send,
) -> T {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let victim = scope.spawn(move || {
            tell.send(listen(calls).expect("the kernel tells of system calls (Linux 5.5)")).unwrap();
            body()
        });
        let listener = told.recv().expect("the thread is watched");
        while !victim.is_finished() {
            judge_next(&listener, &mut judge);
        }
        victim.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits for a call, but not for long, and judges it.
fn judge_next(listener: &OwnedFd, judge: &mut impl FnMut(&Call) -> Verdict) {
    let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    if !matches!(poll(&mut fds, Some(&wait)), Ok(1..)) || !fds[0].revents().contains(PollFlags::IN) {
        return;
    }
    let Some(asked) = receive(listener) else { return };
    let fd = asked.data.args[0];
    let path = std::fs::read_link(format!("/proc/{}/fd/{fd}", asked.pid)).unwrap_or_default();
    let call = Call { number: asked.data.nr.into(), path };
    let (error, flags) = match judge(&call) {
        Verdict::Go => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Verdict::Fail => (-libc::EIO, 0),
    };
    let flags = u32::try_from(flags).unwrap();
    answer(listener, libc::seccomp_notif_resp { id: asked.id, val: 0, error, flags });
}

/// From now on this thread's calls are told to who holds the descriptor.
#[expect(unsafe_code, reason = "no crate here has a safe wrapper")]
fn listen(calls: &[libc::c_long]) -> io::Result<OwnedFd> {
    // struct seccomp_data begins with the number of the call.
    let mut program = vec![filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (at, number) in calls.iter().enumerate() {
        let to_tell = u8::try_from(calls.len() - at).unwrap();
        program.push(filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_tell, 0, u32::try_from(*number).unwrap()));
    }
    program.push(filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the program is a whole one and lives during the call, which copies it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) })
}

fn filter(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k }
}

/// `None` if the caller died meanwhile.
#[expect(unsafe_code, reason = "no crate here has a safe wrapper")]
fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    // SAFETY: plain numbers, and the kernel wants them zero.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is a listener, and the kernel writes one `seccomp_notif`.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    (done == 0).then_some(asked)
}

/// An error means that the caller died meanwhile.
#[expect(unsafe_code, reason = "no crate here has a safe wrapper")]
fn answer(listener: &OwnedFd, mut response: libc::seccomp_notif_resp) {
    // SAFETY: the descriptor is a listener, and the kernel reads one `seccomp_notif_resp`.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
}
