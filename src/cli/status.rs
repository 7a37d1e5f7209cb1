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
        write_group(page, group, status)?;
    }
    writeln!(page)?;
    let standby = |on| if on { ", standby" } else { "" };
    writeln!(page, "  {node:<10} {}{}  (this node)", fitness(Some(status.fitness)), standby(status.standby))?;
    for why in &status.unfit_because {
        writeln!(page, "             {why}")?;
    }
    match status.voter.silent_ms {
        Some(ms) if ms > 0 && !status.voter.lost => {
            writeln!(page, "             gives no vote for {} more after its start", seconds(ms))?;
        }
        Some(_) => writeln!(page, "             gives no vote yet: it waits for what the others remember")?,
        None => {}
    }
    let trip = |ms: Option<f64>| ms.map(|ms| format!(", {ms:.2} ms away")).unwrap_or_default();
    if peer.connected {
        let (fit, away) = (fitness(peer.fitness), trip(peer.round_trip_ms));
        writeln!(page, "  {:<10} {fit}{}{away}", peer.name, standby(peer.standby))?;
    } else {
        writeln!(page, "  {:<10} NOT HEARD{}", peer.name, since(peer.heard_ms))?;
    }
    let state = &status.tiebreak_state;
    if let Some(stand) = &state.stand {
        writeln!(page, "  {:<10} {stand}", "tiebreak")?;
        if let Some(caveat) = &state.caveat {
            writeln!(page, "             \"{}\": {caveat}", status.tiebreak)?;
        }
    } else if witness.connected {
        writeln!(page, "  {:<10} votes{}  ({})", witness.name, trip(witness.round_trip_ms), status.tiebreak)?;
    } else {
        writeln!(page, "  {:<10} NOT HEARD{}  ({})", witness.name, since(witness.heard_ms), status.tiebreak)?;
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

fn write_group(page: &mut String, group: &Group, status: &Status) -> std::fmt::Result {
    let since = group.for_secs.map(|secs| format!(" for {}", span(secs))).unwrap_or_default();
    let place = match (group.owner, group.role) {
        (Some(owner), RoleView::Active) => format!("on {owner}  (active here{since}"),
        (Some(owner), RoleView::Leaving) => format!("on {owner}  (active here{since}, being handed over"),
        (Some(owner), RoleView::Candidate) => format!("on {owner}  (this node asks for votes"),
        (Some(owner), RoleView::Standby) => format!("on {owner}  (standby here"),
        (None, RoleView::Candidate) => "owned by nobody  (this node asks for votes".to_owned(),
        (None, _) if status.peer.connected => "owned by nobody  (standby here".to_owned(),
        (None, _) => format!("owner not known from here ({} is not heard)  (standby here", status.peer.name),
    };
    writeln!(page, "  {:<10} {place}, term {})", group.name, group.term)?;
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
    for certificate in status.web.tls.iter().flat_map(|listener| &listener.certificates) {
        writeln!(page, "  tls        {}", certificate.line())?;
    }
    for upstream in &status.web.upstreams {
        let up = upstream.servers.iter().filter(|s| s.up).count();
        if upstream.servers.iter().any(|s| s.checked) {
            writeln!(page, "  upstream   {} {up} of {} up", upstream.name, upstream.servers.len())?;
        } else {
            writeln!(page, "  upstream   {} not checked", upstream.name)?;
        }
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
    heard_ms.map(|ms| format!(" for {}", seconds(ms))).unwrap_or_default()
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", Duration::from_millis(ms).as_secs_f64())
}

/// In the largest unit that says enough.
fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_largest_unit_that_says_enough() {
        let told = [0, 59, 60, 200, 7_199, 7_200, 172_799, 172_800].map(span);
        assert_eq!(told, ["0 s", "59 s", "1 min", "3 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
