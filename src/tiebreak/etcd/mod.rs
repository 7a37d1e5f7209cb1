//! A third voter made of an existing etcd.
//!
//! One record per group says to whom the third vote is promised. Each node reads and changes it by itself: a change is
//! one transaction that succeeds only on the very record that it was made for, a confirmation is a linearizable read.
//!
//! # Why this is as good as a witness
//!
//! A witness ends a promise by its clock. etcd has clocks too, its leases; they are not used: a leader that was deposed
//! without noticing may go on confirming a lease which the new leader ends, or end one that the new leader confirms
//! (etcd-io/etcd #15247 and #12528, in every release before 3.4.25 and 3.5.8). Here nothing rests on a clock but those
//! of the two nodes:
//!
//! 1. **A promise is kept until it is doubted.** Who wants the group writes a *doubt* into the record. The holder, if it
//!    lives, sees it at its next confirmation and strikes it out. A doubt that has stood for the holder's whole hold,
//!    by the clock of the one who waits and counted from when it knew that the doubt was there, ends the promise.
//!    (`a_doubt_must_stand_for_a_whole_hold`, `a_holder_that_lives_strikes_out_the_doubt`)
//! 2. **A confirmation is worth what was true after it was asked for.** It names a heartbeat that was handed over before
//!    the question was sent, and counts only if the record then names this life and term and nobody doubted it. So
//!    every lease that rests on etcd was counted from before the doubt was written, and is over when the doubt is.
//!    (`a_confirmation_names_a_heartbeat_that_was_told_before_the_question`, `nothing_is_confirmed_under_a_doubt`)
//! 3. **No change on a record that has changed.** Each names the revision that it was decided on; what comes late, or
//!    twice, or after its sender has died, changes nothing else. (`what_is_late_or_comes_twice_changes_nothing`)
//! 4. **A record that is not there may have been lost.** It is doubted like one that is there.
//!    (`a_missing_record_is_doubted_before_it_is_taken`)
//!
//! Release, and the secret of a dead life, end a promise at once, as with a witness. So a worker that is killed is
//! replaced as fast; a node that is gone costs its doubt, another hold, on top of the lease.
//!
//! Outside: an etcd that was put back to a backup while the cluster ran. Stop both nodes before you do that.

pub mod json;
pub mod link;
pub mod model;
pub mod record;
pub mod speaker;
pub mod thread;
