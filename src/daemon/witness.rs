//! The witness: one process that votes for many clusters and owns nothing.

use super::{
    Failure, abort_on_panic, memory,
    signals::{Asked, Signals},
    tell_systemd,
};
use crate::{
    clock,
    config::{WitnessCluster, WitnessConfig},
    driver::witness::{self, Voting, WitnessTold},
    limits::DRIVER_QUEUE_MAX,
    store::{
        folder::Folder,
        voter::{ElectionWriter, Promises},
    },
    telemetry,
    trust::{ClusterId, Keyring, keyring::Purpose},
    vip::priority,
};
use std::{collections::BTreeMap, process::ExitCode};
use tokio::sync::mpsc;

/// Runs a witness until it is told to stop.
#[must_use]
pub fn witness(config: &WitnessConfig) -> ExitCode {
    telemetry::start();
    abort_on_panic();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::passing(error).tell(),
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

async fn run(config: &WitnessConfig) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::passing)?;
    let folder = Folder::open(&config.state_dir).map_err(Failure::lasting)?;
    let (told, queue) = mpsc::channel(DRIVER_QUEUE_MAX);
    let mut clusters = BTreeMap::new();
    for cluster in &config.clusters {
        let (id, voting) = open(&folder, cluster, &told)?;
        if clusters.insert(id, voting).is_some() {
            return Err(Failure::lasting(format!("cluster {} is listed twice: the same secret", cluster.name)));
        }
    }
    let sockets = witness::bind(&config.listen)
        .map_err(|(address, cause)| Failure::passing(format!("cannot use the address {address}/udp: {cause}")))?;
    let raised = priority::raise();
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    tracing::info!(clusters = config.clusters.len(), raised, "witness started");
    let stop = async {
        loop {
            match signals.next().await {
                Asked::Stop => return,
                Asked::Reload | Asked::Reopen => tracing::warn!("the configuration is read at the start only"),
            }
        }
    };
    witness::run(sockets, clusters, queue, stop).await.map_err(Failure::passing)?;
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("witness stopped");
    drop(folder);
    Ok(())
}

fn open(
    folder: &Folder,
    cluster: &WitnessCluster,
    told: &mpsc::Sender<WitnessTold>,
) -> Result<(ClusterId, Voting), Failure> {
    let ring = Keyring::load(&cluster.secret, Purpose::Witness).map_err(Failure::lasting)?;
    let dir = folder.path().join(cluster.name.as_str());
    crate::store::folder::create(&dir).map_err(Failure::lasting)?;
    let promises = Promises::open(&dir).map_err(Failure::lasting)?;
    let remembered = promises.election().map(memory::memory);
    let (id, told) = (ring.id(), told.clone());
    let writer = ElectionWriter::spawn(promises, move |number, result| {
        let told_result = result.map_err(|e: crate::store::Error| e.to_string());
        // A witness that is gone does not need to know.
        let _gone = told.blocking_send(WitnessTold::Persisted(id, number, told_result)).is_err();
    })
    .map_err(Failure::passing)?;
    let persist: witness::Persist =
        Box::new(move |number, memory| writer.write(number, memory::election(memory)).map_err(|e| e.to_string()));
    Ok((id, Voting::new(clock::now(), cluster.name, &ring, remembered, persist)))
}
