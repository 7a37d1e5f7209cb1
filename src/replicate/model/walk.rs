//! A random walk through everything that can happen, and what must hold when it is over.

use super::{super::content::Content, *};

impl World {
    fn step(&mut self) -> Check {
        let node = usize::from(self.random.one_in(2));
        match self.random.below(100) {
            0..=39 => self.deliver(node),
            40..=62 => self.commit(node),
            63..=72 => {
                let time = Duration::from_millis(self.random.below(60));
                self.pass(time)
            }
            73..=79 => self.lease_moves(node),
            80..=89 => {
                let shared = self.random.below(3);
                let key = if shared == 0 { format!("u/{}", self.next) } else { format!("s/{}", self.random.below(3)) };
                self.write(node, &key).map(|_| ())
            }
            90..=92 => self.record(node),
            93..=95 if !self.connected => self.connect(),
            96 if self.random.one_in(2) => {
                self.cut();
                Ok(())
            }
            97 if self.random.one_in(3) => self.disaster(node),
            98 if self.random.one_in(4) => self.pass(REPLICATE_WAIT),
            _ => Ok(()),
        }
    }

    fn lease_moves(&mut self, node: usize) -> Check {
        match self.lease {
            Some(lease) if self.now < lease.until => {
                if self.random.one_in(6) {
                    Ok(())
                } else {
                    self.renew()
                }
            }
            Some(_) | None if self.nodes[node].replica.is_some() => self.elect(node),
            Some(_) | None => Ok(()),
        }
    }

    fn disaster(&mut self, node: usize) -> Check {
        if self.nodes[node].replica.is_none() {
            self.start(node);
            return Ok(());
        }
        self.crash(node);
        // Its next life is another incarnation: this lease is not renewed.
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.node == Some(node)) {
            lease.node = None;
        }
        let other = Copy::load(&self.nodes[1 - node].store).map_err(|e| e.to_string())?;
        if other.trust == Trust::Whole && self.random.one_in(3) {
            self.roll_back(node);
        } else if self.random.one_in(2) {
            self.nodes[node].earlier = self.nodes[node].store.clone();
        }
        Ok(())
    }

    /// Faults are over: the replicas become equal, and nothing that was answered is missing.
    fn heal(&mut self) -> Check {
        for node in 0..2 {
            if self.nodes[node].replica.is_none() {
                self.start(node);
            }
        }
        self.pass(LEASE)?;
        self.connect()?;
        let owner = usize::from(self.random.one_in(2));
        self.elect(owner)?;
        for _ in 0..400 {
            self.settle()?;
            self.pass(Duration::from_millis(50))?;
            self.renew()?;
            if !self.connected {
                self.connect()?;
            }
        }
        let copies: Vec<Copy> = self.nodes.iter().map(|n| Copy::load(&n.store).unwrap()).collect();
        if copies[0].content != copies[1].content {
            let (a, b) = (&copies[0].content, &copies[1].content);
            let (a, b) = (a.clone(), b.clone());
            let only = |x: &Content, y: &Content| {
                let items: Vec<_> = x.items.iter().filter(|(k, i)| y.items.get(*k) != Some(i)).collect();
                format!("{} {items:?} outbox {:?}", x.version(), x.outbox.keys().collect::<Vec<_>>())
            };
            return Err(format!("replicas differ: {} and {}", only(&a, &b), only(&b, &a)));
        }
        if copies.iter().any(|c| !c.dirty.is_empty() || !c.content.outbox.is_empty() || c.trust == Trust::Suspect) {
            return Err("something is left unreplicated".to_owned());
        }
        let content = &copies[0].content;
        let history = content.history();
        assert!(history.len() < HISTORY_MAX, "too long a run: transitions were trimmed");
        for node in &self.nodes {
            if let Some(lost) = node.records.iter().find(|key| content.get(key).is_none()) {
                return Err(format!("transition {lost} was lost"));
            }
            for (key, value) in node.alone.iter().filter(|(key, _)| key.starts_with("u/")) {
                let there = content.get(key).is_some_and(|item| item.value == *value);
                if !there && !history.iter().any(|entry| entry.text.starts_with(&format!("{key} "))) {
                    return Err(format!("{key} was answered, and is neither there nor in the history"));
                }
            }
        }
        Ok(())
    }
}

/// One run.
fn run(seed: u64, faults: Faults) -> Result<Stats, String> {
    let mut world = World::new(seed, faults);
    let steps = 200 + world.random.below(800);
    for _ in 0..steps {
        world.step()?;
    }
    world.heal()?;
    Ok(world.stats)
}

/// `HAWSER_MODEL_SEEDS` makes it longer.
fn seeds() -> u64 {
    std::env::var("HAWSER_MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

#[test]
fn acknowledged_writes_survive_and_replicas_converge() {
    let mut all = Stats::default();
    for seed in 0..seeds() {
        let stats = run(seed, Faults::default()).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        all.replicated += stats.replicated;
        all.alone += stats.alone;
        all.unknown += stats.unknown;
        all.forwarded += stats.forwarded;
        all.conflicts += stats.conflicts;
        all.copies += stats.copies;
        all.refusals += stats.refusals;
        all.crashes += stats.crashes;
        all.rollbacks += stats.rollbacks;
    }
    println!("{all:?}");
    let least = all.replicated.min(all.alone).min(all.unknown).min(all.forwarded).min(all.conflicts);
    let least = least.min(all.copies).min(all.refusals).min(all.crashes).min(all.rollbacks);
    assert!(least > 20, "the walk does not go everywhere: {all:?}");
}

/// The first seed that notices a fault.
fn red(faults: Faults) -> Option<(u64, String)> {
    (0..seeds()).find_map(|seed| run(seed, faults).err().map(|why| (seed, why)))
}

#[test]
fn each_planted_fault_turns_the_model_red() {
    let none = Faults::default();
    for (faults, expected) in [
        (Faults { lower_term: true, ..none }, "below its highest"),
        (Faults { early_answer: true, ..none }, "was acknowledged"),
        (Faults { no_offers: true, ..none }, " was lost"),
        (Faults { late_answer: true, ..none }, "without the lease"),
    ] {
        let (seed, why) = red(faults).unwrap_or_else(|| panic!("nothing noticed {faults:?}"));
        println!("{faults:?}: seed {seed}: {why}");
        assert!(why.contains(expected), "{faults:?} was noticed as something else: {why}");
    }
}
