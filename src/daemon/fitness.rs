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
    promise: Option<String>,
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

    /// From the writer of the promise file: it has failed, and stays so.
    pub(super) fn promise_failed(&self, cause: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).promise = Some(failed("the promise file", cause));
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = [&reasons.addresses, &reasons.promise, &reasons.store, &reasons.web];
        all.into_iter().flatten().cloned().collect()
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

/// What is wrong with the state, and what ends it.
fn trouble(health: &Health) -> Option<String> {
    match health {
        Health::Ok => None,
        Health::Failed(cause) => Some(failed("the state", cause)),
        Health::RolledBack => {
            Some("the state on this disk may be older than what was confirmed; it waits for the peer's copy".to_owned())
        }
        Health::Rebuilding => Some("the state is being rebuilt from the peer's copy".to_owned()),
    }
}

fn failed(what: &str, cause: &str) -> String {
    format!("{what} failed ({cause}): see to the disk, then restart hawser on this node")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{self, Told};

    fn view(health: Health) -> View {
        View { health, ..View::default() }
    }

    /// What the engine is told, in order.
    async fn told(queue: &mut tokio::sync::mpsc::Receiver<Told>) -> Fitness {
        match queue.recv().await {
            Some(Told::Input(Input::Fitness(fitness))) => fitness,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_node_whose_store_cannot_be_believed_is_unable_until_it_can() {
        let (driver, mut queue) = driver::queue();
        let (why, (_web, web)) = (Why::default(), watch::channel(None));
        let (state, states) = watch::channel(view(Health::Ok));
        let watching = tokio::spawn(run(why.clone(), web, states, driver));
        assert_eq!(told(&mut queue).await, Fitness::Fit);
        for (health, word) in [
            (Health::RolledBack, "older than what was confirmed"),
            (Health::Rebuilding, "rebuilt"),
            (Health::Failed("cannot sync: EIO".to_owned()), "EIO"),
        ] {
            state.send_replace(view(health));
            assert_eq!(told(&mut queue).await, Fitness::Unable);
            assert!(why.list().concat().contains(word), "{:?}", why.list());
            state.send_replace(view(Health::Ok));
            assert_eq!(told(&mut queue).await, Fitness::Fit);
        }
        watching.abort();
    }

    #[test]
    fn a_promise_file_that_failed_is_told_with_the_way_out() {
        let why = Why::default();
        why.promise_failed("cannot write /var/lib/hawser/promise: EIO");
        let told = why.list().concat();
        assert!(told.contains("promise: EIO") && told.contains("restart hawser"), "{told}");
    }
}
