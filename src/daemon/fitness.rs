//! How far this node can serve, from what its parts say.

use crate::{
    cluster::{Fitness, Input},
    driver::DriverHandle,
    replicate::{Health, View},
};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Why this node is not fit, part by part.
#[derive(Debug, Default)]
struct Reasons {
    web: Option<String>,
    store: Option<String>,
    addresses: Option<String>,
}

/// Shared by those who know and those who show.
#[derive(Debug, Clone, Default)]
pub(super) struct Why(Arc<Mutex<Reasons>>);

impl Why {
    /// From the keeper of the addresses.
    pub(super) fn addresses(&self, why: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses = why;
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [&reasons.addresses, &reasons.store, &reasons.web].into_iter().flatten().cloned().collect()
    }
}

/// Watches web tier and state, and tells the engine.
pub(super) async fn run(
    why: Why,
    mut web: watch::Receiver<Option<String>>,
    mut state: watch::Receiver<View>,
    driver: DriverHandle,
) {
    let mut told = None;
    loop {
        let (web_says, store_says) = (web.borrow_and_update().clone(), trouble(&state.borrow_and_update().health));
        let fitness = match (&store_says, &web_says) {
            (Some(_), _) => Fitness::Unable,
            (None, Some(_)) => Fitness::Unfit,
            (None, None) => Fitness::Fit,
        };
        {
            let mut reasons = why.0.lock().unwrap_or_else(PoisonError::into_inner);
            (reasons.web, reasons.store) = (web_says, store_says);
        }
        if told != Some(fitness) {
            tracing::info!(?fitness, why = why.list().join("; "), "fitness changed");
            driver.tell_async(Input::Fitness(fitness)).await;
            told = Some(fitness);
        }
        let gone = tokio::select! {
            changed = web.changed() => changed.is_err(),
            changed = state.changed() => changed.is_err(),
        };
        if gone {
            return;
        }
    }
}

fn trouble(health: &Health) -> Option<String> {
    match health {
        Health::Ok => None,
        Health::Failed(why) => Some(format!("store failed: {why}")),
        Health::RolledBack => {
            Some("the state on this disk is older than what was confirmed; it waits for the peer's copy".to_owned())
        }
        Health::Rebuilding => Some("the state is being rebuilt from the peer's copy".to_owned()),
    }
}
