//! Two members that say something each 25 ms, on two ways.

use super::*;

const STEP: Duration = Duration::from_millis(25);

/// One side of a pair of links, and the clock.
struct Bench {
    ways: Ways,
    now: Instant,
    counter: u64,
    life: Incarnation,
    events: Vec<WayEvent>,
}

impl Bench {
    fn new() -> Self {
        let ways = Ways::new(Member::Second, 2, Duration::from_millis(500));
        Self { ways, now: Instant::from_millis(1_000), counter: 0, life: Incarnation(1), events: Vec::new() }
    }

    fn arrive(&mut self, by: usize, heard: &[usize]) {
        let heard = Some(heard.iter().copied().collect());
        let arrived = Arrived { at: self.now, by, life: self.life, counter: self.counter, heard };
        self.events.extend(self.ways.arrived(arrived));
    }

    /// For so long each datagram comes by these ways, and tells that we are heard on those.
    fn run(&mut self, millis: u64, by: &[usize], heard: &[usize]) -> Vec<WayEvent> {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now = self.now + STEP;
            self.counter += 1;
            by.iter().for_each(|by| self.arrive(*by, heard));
        }
        std::mem::take(&mut self.events)
    }

    fn carries(&self) -> [[Carries; 2]; 2] {
        let views = self.ways.views(self.now);
        [0, 1].map(|way| [views[way].from.carries, views[way].to.carries])
    }
}

fn event(way: usize, direction: Direction, change: Change) -> WayEvent {
    WayEvent { member: Member::Second, way, direction, change }
}

const LOST: Change = Change::Lost { carried: true };

#[test]
fn one_way_loss_is_named_with_its_direction() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(1_000, &[0, 1], &[0, 1]), []);
    assert_eq!(bench.run(1_000, &[0], &[0, 1]), [event(1, Direction::From, LOST)]);
    assert_eq!(bench.carries(), [[Carries::Yes, Carries::Yes], [Carries::No, Carries::Yes]]);
    let mut bench = Bench::new();
    bench.run(1_000, &[0, 1], &[0, 1]);
    assert_eq!(bench.run(1_000, &[0, 1], &[0]), [event(1, Direction::To, LOST)]);
    assert_eq!(bench.carries(), [[Carries::Yes, Carries::Yes], [Carries::Yes, Carries::No]]);
}

#[test]
fn an_only_way_on_which_we_are_not_heard_is_named_by_what_the_other_side_tells() {
    let mut bench = Bench::new();
    bench.run(1_000, &[0], &[0]);
    bench.events.clear();
    let lost = bench.run(1_000, &[0], &[]);
    assert!(lost.contains(&event(0, Direction::To, LOST)), "{lost:?}");
}

#[test]
fn a_way_that_never_carried_is_told_as_such() {
    let mut bench = Bench::new();
    let never = Change::Lost { carried: false };
    let told = bench.run(1_000, &[0], &[0]);
    assert_eq!(told, [event(1, Direction::From, never), event(1, Direction::To, never)]);
}

#[test]
fn when_the_other_side_is_silent_nothing_is_said_of_its_ways() {
    let mut bench = Bench::new();
    bench.run(1_000, &[0, 1], &[0, 1]);
    bench.now = bench.now + Duration::from_secs(60);
    assert_eq!(bench.carries(), [[Carries::Unknown; 2]; 2]);
    assert_eq!(bench.ways.heard(bench.now), LinkSet::default());
    // It is back, perhaps in another life; one datagram is ahead on one way.
    (bench.life, bench.counter) = (Incarnation(2), 0);
    bench.counter += 1;
    bench.arrive(0, &[]);
    assert_eq!(bench.run(1_000, &[1, 0], &[0, 1]), []);
    assert_eq!(bench.carries(), [[Carries::Yes; 2]; 2]);
}

#[test]
fn a_backlog_read_after_a_freeze_loses_no_way() {
    let mut bench = Bench::new();
    bench.run(1_000, &[0, 1], &[0, 1]);
    bench.now = bench.now + Duration::from_secs(30);
    // All that came meanwhile by one way is read before all that came by the other.
    let first = bench.counter;
    for counter in first + 1..first + 65 {
        bench.counter = counter;
        bench.arrive(0, &[0, 1]);
    }
    for counter in first + 1..first + 65 {
        bench.counter = counter;
        bench.arrive(1, &[0, 1]);
    }
    assert_eq!(bench.run(1_000, &[0, 1], &[0, 1]), []);
}

#[test]
fn what_was_recorded_and_is_played_again_does_not_bring_a_way_back() {
    let mut bench = Bench::new();
    bench.run(1_000, &[0, 1], &[0, 1]);
    let recorded = bench.counter;
    bench.run(1_000, &[0], &[0]);
    let now = bench.counter;
    for _ in 0..100 {
        bench.counter = recorded;
        bench.arrive(1, &[0, 1]);
    }
    bench.counter = now;
    assert_eq!(bench.carries()[1], [Carries::No, Carries::No]);
}

#[test]
fn a_way_that_flaps_is_told_of_less_and_less_often() {
    let mut bench = Bench::new();
    bench.run(1_000, &[0, 1], &[0, 1]);
    let mut told = 0;
    // An hour of flapping, each time up for so long that a single loss would be over.
    for _ in 0..1_200 {
        told += bench.run(1_000, &[0], &[0, 1]).len();
        told += bench.run(2_050, &[0, 1], &[0, 1]).len();
    }
    assert!(told <= 8, "{told} lines");
    assert_eq!(bench.ways.views(bench.now)[1].from.losses, 1_200);
    assert!(bench.ways.views(bench.now)[1].from.unsteady);
    let back = bench.run(70_000, &[0, 1], &[0, 1]);
    assert!(matches!(back[..], [WayEvent { change: Change::Back { losses, .. }, .. }] if losses > 1_000), "{back:?}");
    assert!(!bench.ways.views(bench.now)[1].from.unsteady);
    // Calm for long enough, and it is trusted as soon as at first.
    bench.run(700_000, &[0, 1], &[0, 1]);
    assert_eq!(bench.run(1_000, &[0], &[0, 1]).len(), 1);
    assert_eq!(bench.run(2_500, &[0, 1], &[0, 1]).len(), 1);
}

#[test]
fn any_byte_is_a_set_of_links_and_links_that_do_not_exist_are_nobodys() {
    for byte in 0..=u8::MAX {
        let set: LinkSet = postcard::from_bytes(&[byte]).unwrap();
        assert_eq!((0..100).filter(|link| set.contains(*link)).collect::<LinkSet>(), set);
        let mut bench = Bench::new();
        bench.counter += 1;
        let arrived = Arrived { at: bench.now, by: 99, life: bench.life, counter: 1, heard: Some(set) };
        assert_eq!(bench.ways.arrived(arrived), []);
    }
}
