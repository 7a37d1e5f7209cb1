//! `hawser status`: how a node and its cluster are doing, on one screen.

use super::{args::StatusArgs, out};
use crate::{
    admin::{
        api::{Carries, Direction, Group, Link, Status},
        client,
    },
    cluster::{Fitness, STATE_GROUP, engine::RoleView},
    config::NOBODY,
    limits::LATE_MINUTES,
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
    if peer.name.as_str() == NOBODY {
        // There is no other node.
    } else if peer.connected {
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
    for way in witness.ways.iter().filter(|_| witness.ways.len() > 1) {
        let answers = match way.answers.carries {
            Carries::Yes => "answers",
            Carries::No => "NO ANSWER, while another way works",
            Carries::Unknown => "not heard",
        };
        writeln!(page, "             by {}: {answers}", way.to)?;
    }
    write_voters(page, status)?;
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

fn write_voters(page: &mut String, status: &Status) -> std::fmt::Result {
    let voters = &status.voters;
    writeln!(page, "  {:<10} {} (set {})", "voters", voters.in_force, voters.generation)?;
    if let Some(wanted) = &voters.wanted {
        writeln!(page, "             to become {wanted}")?;
    }
    if let Some(waits_for) = &voters.waits_for {
        writeln!(page, "             next step when: {waits_for}")?;
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
    write_lateness(page, status)?;
    for link in &status.links {
        writeln!(page, "  link {:<5} {} - {}  {}", link.number, link.from, link.to, carries(link, status))?;
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

/// How late the thread was called that everything hangs on.
fn write_lateness(page: &mut String, status: &Status) -> std::fmt::Result {
    let (worst, recent) = (status.worst_tick_ms, status.recent_tick_ms);
    writeln!(page, "  lateness   {worst:.1} ms at worst, {recent:.1} ms in the last {LATE_MINUTES} minutes")
}

/// What a link carries, in both directions.
fn carries(link: &Link, status: &Status) -> String {
    let (node, peer) = (&status.node, &status.peer.name);
    let lately = |direction: &Direction| match direction.carried_ms {
        Some(ms) => format!(" for {}", span(ms / 1000)),
        None => " so far".to_owned(),
    };
    match (link.from_peer.carries, link.to_peer.carries) {
        (Carries::Yes, Carries::Yes) if link.from_peer.unsteady || link.to_peer.unsteady => {
            format!("up, UNSTEADY: lost {} times", link.from_peer.losses.max(link.to_peer.losses))
        }
        (Carries::Yes, Carries::Yes) => "up".to_owned(),
        (Carries::No, Carries::Yes) => format!("ONE WAY: nothing from {peer} to {node}{}", lately(&link.from_peer)),
        (Carries::Yes, Carries::No) => format!("ONE WAY: nothing from {node} to {peer}{}", lately(&link.to_peer)),
        (Carries::No, Carries::No | Carries::Unknown) => format!("DOWN{}", lately(&link.from_peer)),
        (Carries::Yes, Carries::Unknown) => format!("{peer} is heard"),
        (Carries::Unknown, Carries::Yes | Carries::No | Carries::Unknown) => {
            format!("nothing from {peer}{}", lately(&link.from_peer))
        }
    }
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
