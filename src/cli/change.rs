//! `hawser switchover`, `standby`, `unstandby`, `confirm-fenced`.

use super::{
    args::{ConfirmFencedArgs, StandbyArgs, SwitchoverArgs, UnstandbyArgs},
    out,
};
use crate::{
    admin::{
        api::{Changed, ConfirmFenced, SetStandby, Status, Switchover},
        client,
    },
    cluster::{GroupName, Name, STATE_GROUP},
};
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long a switchover is waited for: a long drain, and then some.
const WAIT: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(50);

/// `hawser switchover`.
pub(crate) fn switchover(args: &SwitchoverArgs) -> ExitCode {
    match try_switchover(args) {
        Ok(changed) => told(&changed, args.json),
        Err(why) => {
            out::error(why);
            ExitCode::FAILURE
        }
    }
}

fn try_switchover(args: &SwitchoverArgs) -> Result<Changed, String> {
    let socket = &args.socket.socket;
    let status: Status = client::get(socket, "/v1/status").map_err(|e| e.to_string())?;
    let group = match args.group {
        Some(group) => group,
        None => only_group(&status)?,
    };
    if status.groups.iter().all(|g| g.name != group) {
        return Err(format!("there is no group {group}: {}", there_is(&status)));
    }
    let owner = status.groups.iter().find(|g| g.name == group).and_then(|g| g.owner);
    let nodes = [status.node, status.peer.name];
    let to = match (args.to, owner) {
        (Some(to), _) => to,
        (None, Some(owner)) => nodes.into_iter().find(|n| *n != owner).unwrap_or(status.peer.name),
        (None, None) => return Err(format!("nobody owns {group} now; see hawser status")),
    };
    if args.dry_run {
        let from =
            owner.map_or("nobody", |o| if nodes[0] == o { nodes[0].as_str() } else { nodes[1].as_str() }).to_owned();
        return Ok(Changed { text: format!("would move {group} from {from} to {to}"), replicated: None });
    }
    let wish = Switchover { group, to: Some(to), force: args.force };
    let begun = Instant::now();
    let changed: Changed = client::post(socket, "/v1/switchover", &wish).map_err(|e| e.to_string())?;
    if args.no_wait || owner == Some(to) {
        return Ok(changed);
    }
    while begun.elapsed() < WAIT {
        if owner_of(socket, group)? == Some(to) {
            let text = format!("{group} is on {to} now, after {} ms", begun.elapsed().as_millis());
            return Ok(Changed { text, replicated: None });
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("{group} was not on {to} within {} s; see hawser status and hawser history", WAIT.as_secs()))
}

fn there_is(status: &Status) -> String {
    let named = status.groups.iter().map(|g| g.name.as_str()).filter(|name| *name != STATE_GROUP);
    let names: Vec<&str> = named.collect();
    if names.is_empty() { "none is configured".to_owned() } else { format!("there is {}", names.join(", ")) }
}

fn only_group(status: &Status) -> Result<GroupName, String> {
    let mut groups = status.groups.iter().map(|g| g.name).filter(|g| g.as_str() != STATE_GROUP);
    match (groups.next(), groups.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err("there are several groups: name one".to_owned()),
        (None, _) => Err("there is no group with addresses to move".to_owned()),
    }
}

fn owner_of(socket: &Path, group: GroupName) -> Result<Option<Name>, String> {
    let status: Status = client::get(socket, "/v1/status").map_err(|e| e.to_string())?;
    Ok(status.groups.iter().find(|g| g.name == group).and_then(|g| g.owner))
}

/// `hawser standby`.
pub(crate) fn standby(args: &StandbyArgs) -> ExitCode {
    let wish = SetStandby { node: args.node, on: true, force: args.force };
    set(&args.socket.socket, &wish, args.json)
}

/// `hawser unstandby`.
pub(crate) fn unstandby(args: &UnstandbyArgs) -> ExitCode {
    let wish = SetStandby { node: args.node, on: false, force: false };
    set(&args.socket.socket, &wish, args.json)
}

/// `hawser confirm-fenced`.
pub(crate) fn confirm_fenced(args: &ConfirmFencedArgs) -> ExitCode {
    let node = args.node;
    if !args.yes {
        out::error(format_args!(
            "nothing was done: if {node} runs, this would make both nodes answer for the addresses. Look at the machine; \
             if it is off, say `hawser confirm-fenced {node} --yes`"
        ));
        return ExitCode::from(2);
    }
    match client::post::<Changed>(&args.socket.socket, "/v1/confirm-fenced", &ConfirmFenced { node }) {
        Ok(changed) => told(&changed, args.json),
        Err(error) => {
            out::error(error);
            ExitCode::FAILURE
        }
    }
}

fn set(socket: &Path, wish: &SetStandby, json: bool) -> ExitCode {
    match client::post::<Changed>(socket, "/v1/standby", wish) {
        Ok(changed) => told(&changed, json),
        Err(error) => {
            out::error(error);
            ExitCode::FAILURE
        }
    }
}

fn told(changed: &Changed, json: bool) -> ExitCode {
    if json {
        return out::json(changed);
    }
    let kept = if changed.replicated == Some(false) { " (on this node only: the peer will be told)" } else { "" };
    out::line(format_args!("{}{kept}", changed.text));
    ExitCode::SUCCESS
}
