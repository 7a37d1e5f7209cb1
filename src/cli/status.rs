//! `hawser status`: how a node and its cluster are doing, on one screen.

use super::{args::StatusArgs, out};
use crate::{
    admin::{
        api::{Group, Status},
        client,
    },
    cluster::{Fitness, STATE_GROUP, engine::RoleView},
    replicate::ViewRole,
};
use std::{fmt::Write, process::ExitCode, thread, time::Duration};

const LOOK: Duration = Duration::from_millis(250);

/// `hawser status`. Exit code 0 if all is well with redundancy, 1 if no daemon answers, 2 if something needs a look.
pub(crate) fn status(args: &StatusArgs) -> ExitCode {
    let mut shown = String::new();
    loop {
        let status: Status = match client::get(&args.socket.socket, "/v1/status") {
            Ok(status) => status,
            Err(error) if args.watch => {
                show(&mut shown, format!("{error}\n"));
                thread::sleep(LOOK);
                continue;
            }
            Err(error) => {
                out::error(error);
                return ExitCode::FAILURE;
            }
        };
        if args.json {
            let code = out::json(&status);
            if !args.watch {
                return code;
            }
        } else if args.watch {
            show(&mut shown, page(&status));
        } else {
            out::write(page(&status).as_bytes());
            return if status.advice.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
        thread::sleep(LOOK);
    }
}

/// Prints again what has changed: on a terminal in place, else below.
fn show(shown: &mut String, page: String) {
    if *shown != page {
        let clear = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\x1b[H\x1b[2J" } else { "" };
        out::write(format!("{clear}{page}").as_bytes());
        *shown = page;
    }
}

fn page(status: &Status) -> String {
    let mut page = String::new();
    match write_page(&mut page, status) {
        Ok(()) => page,
        Err(error) => format!("the page cannot be written: {error}\n"),
    }
}

fn write_page(page: &mut String, status: &Status) -> std::fmt::Result {
    let Status { cluster, node, peer, witness, .. } = status;
    writeln!(page, "cluster {cluster}, seen from {node} (hawser {})", status.version)?;
    writeln!(page)?;
    for group in status.groups.iter().filter(|g| g.name.as_str() != STATE_GROUP) {
        write_group(page, group)?;
    }
    writeln!(page)?;
    let standby = |on| if on { ", standby" } else { "" };
    writeln!(page, "  {node:<10} {}{}  (this node)", fitness(Some(status.fitness)), standby(status.standby))?;
    for why in &status.unfit_because {
        writeln!(page, "             {why}")?;
    }
    let trip = |ms: Option<f64>| ms.map(|ms| format!(", {ms:.2} ms away")).unwrap_or_default();
    if peer.connected {
        let (fit, away) = (fitness(peer.fitness), trip(peer.round_trip_ms));
        writeln!(page, "  {:<10} {fit}{}{away}", peer.name, standby(peer.standby))?;
    } else {
        writeln!(page, "  {:<10} NOT HEARD{}", peer.name, since(peer.heard_ms))?;
    }
    if witness.connected {
        writeln!(page, "  {:<10} votes{}  (witness)", witness.name, trip(witness.round_trip_ms))?;
    } else {
        writeln!(page, "  {:<10} NOT HEARD{}  (witness)", witness.name, since(witness.heard_ms))?;
    }
    writeln!(page)?;
    write_lease(page, status)?;
    write_web(page, status)?;
    if !status.advice.is_empty() {
        writeln!(page)?;
    }
    for advice in &status.advice {
        writeln!(page, "  ! {advice}")?;
    }
    Ok(())
}

fn write_group(page: &mut String, group: &Group) -> std::fmt::Result {
    let role = match group.role {
        RoleView::Active => "active here",
        RoleView::Leaving => "active here, being handed over",
        RoleView::Standby if group.owner.is_some() => "standby here",
        RoleView::Standby => "owned by nobody",
        RoleView::Candidate => "this node asks for votes",
    };
    let owner = group.owner.map_or("-", |o| if o.as_str().is_empty() { "-" } else { "on" });
    let owner = group.owner.map(|o| format!("{owner} {o}")).unwrap_or_default();
    writeln!(page, "  {:<10} {owner}  ({role}, term {})", group.name, group.term)?;
    for vip in &group.vips {
        writeln!(page, "             {vip}")?;
    }
    Ok(())
}

fn write_lease(page: &mut String, status: &Status) -> std::fmt::Result {
    let layers = &status.layers;
    let mut force: Vec<&str> = Vec::new();
    let named = [
        (layers.supervisor, "supervisor"),
        (layers.gate, "gate"),
        (layers.lifetime, "address lifetime"),
        (layers.sock_destroy, "socket destruction"),
    ];
    force.extend(named.iter().filter(|(on, _)| *on).map(|(_, name)| *name));
    writeln!(page, "  lease      {} ms, enforced by {}", status.lease_ms, force.join(", "))?;
    for link in &status.links {
        let up = if link.up { "up" } else { "DOWN" };
        writeln!(page, "  link       {} - {} {up}", link.from, link.to)?;
    }
    let state = &status.state;
    let role = match state.role {
        ViewRole::Owner => "writes here",
        ViewRole::InStep => "in step",
        ViewRole::Waiting => "waits for the peer",
    };
    let behind =
        if state.unreplicated > 0 { format!(", {} keys not replicated", state.unreplicated) } else { String::new() };
    writeln!(page, "  state      {role}{behind}")
}

fn write_web(page: &mut String, status: &Status) -> std::fmt::Result {
    for upstream in &status.web.upstreams {
        let up = upstream.servers.iter().filter(|s| s.up).count();
        writeln!(page, "  upstream   {} {up} of {} up", upstream.name, upstream.servers.len())?;
        for server in upstream.servers.iter().filter(|s| !s.up) {
            writeln!(page, "             {} down: {}", server.address, server.error.as_deref().unwrap_or("?"))?;
        }
    }
    Ok(())
}

fn fitness(fitness: Option<Fitness>) -> &'static str {
    match fitness {
        Some(Fitness::Fit) => "fit",
        Some(Fitness::Unfit) => "UNFIT",
        Some(Fitness::Unable) => "UNABLE",
        None => "unknown",
    }
}

fn since(heard_ms: Option<u64>) -> String {
    heard_ms.map(|ms| format!(" for {:.1} s", Duration::from_millis(ms).as_secs_f64())).unwrap_or_default()
}
