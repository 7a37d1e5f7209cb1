//! Permission to make network namespaces: root has it, anybody else gets it from a user namespace of their own.
//!
//! A user namespace can only be entered by a process of one thread, so the program is started again, as itself, with
//! the entry between: same process, same arguments, same terminal. The caller is root in there and nowhere else.

use super::error::{Error, Result};
use super::netns::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Set in the environment of a process that was started again inside its user namespace.
pub const INSIDE: &str = "HAWSER_DEMO_INSIDE";

/// Gives the process the permission to make networks, if it has not got it. May not return: the program then starts
/// again from the top.
///
/// # Errors
/// If this machine forbids user namespaces; the message names the setting.
pub fn enter() -> Result<()> {
    let Err(refusal) = Netns::new() else { return Ok(()) };
    if std::env::var_os(INSIDE).is_some() {
        return Err(Error::new(forbidden(&refusal)));
    }
    let mut again = Command::new(this_program());
    again.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    if let Some(name) = std::env::args_os().next() {
        again.arg0(name);
    }
    Err(Error::new(forbidden(&in_user_namespace(&mut again).exec())))
}

/// This very program, by its path (for the lists of processes that people read) or, if the file was replaced, as it is.
#[must_use]
pub fn this_program() -> PathBuf {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    path.unwrap_or_else(|| "/proc/self/exe".into())
}

/// Makes `command` start as root of a user namespace of its own, in which the caller's user and group are 0.
#[expect(unsafe_code, reason = "a hook between fork and exec has no safe form")]
pub fn in_user_namespace(command: &mut Command) -> &mut Command {
    let users = format!("0 {} 1\n", geteuid());
    let groups = format!("0 {} 1\n", getegid());
    let hook = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // user_namespaces(7): a group map may only be written by an ordinary user once setgroups(2) is given up.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &users)?;
        write("/proc/self/gid_map", &groups)
    };
    // SAFETY: the hook makes system calls on short constant paths and on text made beforehand: std::fs::write keeps
    // such a path on the stack, so nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(hook) }
}

fn write(path: &str, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}

/// The settings that forbid user namespaces: file, the value that forbids, and the command that allows.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ("/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
];

fn forbidden(refusal: &io::Error) -> String {
    let setting = SETTINGS.iter().find(|(path, forbids, _)| {
        std::fs::read_to_string(path).is_ok_and(|value| OsStr::new(value.trim()) == OsStr::new(forbids))
    });
    let cause = match setting {
        Some((path, forbids, allow)) => {
            format!("{path} is {forbids}. Allow it with `sysctl -w {allow}`")
        }
        None => "a container or a security module may forbid it. Allow CAP_SYS_ADMIN or user namespaces".into(),
    };
    format!("cannot make the demo's network namespaces ({refusal}): {cause}, or run `hawser demo` as root")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::testing::in_user_sandbox;

    #[test]
    fn a_machine_that_forbids_namespaces_is_told_which_setting_to_change() {
        in_user_sandbox(
            "demo::stage::tests::a_machine_that_forbids_namespaces_is_told_which_setting_to_change",
            || {
                assert!(enter().is_ok());
                let setting = "/proc/sys/user/max_net_namespaces"; // of this user namespace alone
                std::fs::write(setting, "0").unwrap();
                let told = enter().unwrap_err().to_string();
                assert!(told.contains(setting) && told.contains("sysctl -w") && told.contains("as root"), "{told}");
            },
        );
    }
}
