//! Who is let in: the cluster's CA and secrets, identities, TLS settings, sealed datagrams.
//!
//! Everything that arrives from the network passes through here before anybody else looks at it. What a stranger sends
//! is refused and counted; it never ends the process and never costs more than a bounded amount of work.
//!
//! | module       | what it is for                                                     |
//! |--------------|--------------------------------------------------------------------|
//! | [`keyring`]  | the secret that the members of a cluster share, and its file        |
//! | [`seal`]     | sealed datagrams and the release notice                             |
//! | [`pki`]      | makes a cluster's CA, certificates and secrets (`hawser init`)      |
//! | [`identity`] | loads what a node is from its folder                                |
//! | [`tls`]      | mutual TLS 1.3 between the nodes                                    |
//! | [`outside`]  | TLS with a server that is not of the cluster: an etcd               |
//! | [`site`]     | certificates and keys that sites show to visitors                   |
//! | [`tickets`]  | session tickets that either node can open                           |
//!
//! # Threats
//!
//! Who may want what, what stops them, and the test that shows it. **Nothing** means that nothing in hawser stops them:
//! what helps then is said beside it. The secrets are the cluster's keys, certificates and secrets; the state is the
//! replicated one and the promises.
//!
//! | who | what they are after | what stops them | shown by |
//! |---|---|---|---|
//! | stranger on the network | the address: forged votes, heartbeats, releases | each datagram is sealed (AES-256-GCM-SIV), whole header included | `every_single_bit_flip_is_refused`, `arbitrary_bytes_behind_a_good_header_never_open` |
//! | | a release notice, the one datagram without a seal | 32 random bytes that only a dead life's supervisor tells; it ends what carries their hash and nothing else | `a_notice_is_let_through_without_a_seal_but_only_for_this_cluster`, `strangers_secrets_do_not_push_out_the_one_that_counts` |
//! | | state, content: replication | TLS 1.3 both ways, the cluster's CA, the peer's name | `a_client_without_a_certificate_is_refused`, `nobody_but_the_peer_gets_in` |
//! | | memory and CPU of node or witness | one key derivation for each datagram, nothing kept, no answer; few handshakes at a time | `garbage_pushes_no_proven_key_out_and_fills_no_memory`, `garbage_replays_and_foreign_clusters_are_counted_and_have_no_effect` |
//! | | the line: more datagrams than it carries | **nothing**: a flood that fills a link is a cut link. Keep links apart from visitors | `nodes_that_lose_each_other_but_not_the_witness_stay_as_they_are` |
//! | stranger on the path of a link | two owners, by holding back, repeating and reordering | promises and leases end by clocks, not by messages; a replay window for each life | `at_most_one_node_answers_whatever_happens_and_one_does_when_it_is_over`, `each_counter_is_accepted_at_most_once_and_never_when_too_old` |
//! | | no owner, by dropping everything | **nothing**: who cuts a node from peer and witness takes its address away. The other node takes over | `an_owner_without_its_cable_is_replaced_and_does_not_answer_when_it_is_plugged_in` |
//! | | what is said | TLS and the seal. Sizes and times can be seen, and two equal payloads of a cloned life | `a_repeated_life_and_counter_do_not_open_other_payloads` |
//! | stranger on the segment of an address | visitors, by claiming the address in ARP or neighbour discovery | **nothing**: it is named by its MAC in log, history and `status`, and announced against, once a second. A switch with ARP and RA/ND inspection helps | `a_third_machine_that_claims_an_ipv4_address_is_named_by_its_mac_and_answered_at_once`, `a_third_machine_that_claims_an_ipv6_address_is_named_by_its_mac_and_answered_at_once`, `a_frame_of_a_stranger_that_is_cut_short_claims_nothing` |
//! | | log and history, by claims under many names | each name once a minute, so many names a minute | `a_stranger_with_many_names_is_not_told_more_often_than_the_limit` |
//! | visitor | files outside the site | paths are taken apart before they are decoded; the kernel resolves them below the root | `no_path_leaves_the_root`, `no_path_leads_upwards`, `a_pipe_or_a_socket_is_not_served` |
//! | | another visitor's request, by smuggling | ambiguous framing is refused, hop-by-hop fields end here | `ambiguous_framing_is_refused`, `a_length_beside_chunks_is_not_passed_on`, `a_client_cannot_drop_what_the_proxy_adds` |
//! | | to pass for someone else behind the proxy | what a client says of other proxies and of certificates is replaced; PROXY headers are taken from named networks only | `what_a_client_says_of_other_proxies_is_replaced`, `what_a_client_says_of_its_certificate_is_replaced_in_every_spelling`, `only_the_proxies_that_are_named_may_connect` |
//! | | to get in without the certificate that is demanded | rustls checks the chain; a session is taken up again only where the same is demanded of the same CA. **Nothing** takes a single certificate back before it expires: take its CA out | `a_required_certificate_of_a_client_must_be_there_and_be_good`, `a_session_does_not_get_in_where_more_is_demanded_than_where_it_began`, `a_session_ends_with_the_certificate_that_began_it` |
//! | | the node's time, by HTTP/2 | streams, resets, header lists and frames that carry nothing have limits | `rapid_resets_are_cut_off`, `resets_that_a_client_provokes_are_cut_off`, `continuations_without_an_end_are_cut_off`, `frames_that_carry_nothing_are_cut_off` |
//! | | all places, by handshakes that never end | a deadline, and places of their own | `a_slow_handshake_is_cut_off`, `handshakes_that_never_end_leave_room_for_those_that_do` |
//! | | memory and time of the daemon | heads, streams, connections and stalls have limits; the cluster thread is not a web thread | `a_head_that_is_too_large_is_refused`, `a_client_that_never_ends_its_head_is_let_go`, `a_client_that_takes_nothing_is_let_go`, `more_connections_than_allowed_are_refused_and_counted` |
//! | | all connections for themselves | **nothing**: the limit is one for all visitors together, and no rate is limited | |
//! | stranger's cluster, same names, own CA | to be taken for a member | another CA is not believed, another cluster's datagrams are foreign | `the_same_names_of_another_ca_are_refused_by_either_end`, `files_of_different_folders_do_not_fit_together` |
//! | another member's certificate | to be taken for the peer | the name is compared, by both ends | `a_certificate_of_the_right_ca_and_another_name_is_refused_by_either_end`, `a_server_with_another_members_certificate_is_not_taken_for_the_peer` |
//! | whoever has the witness, or its key | to own something, to read or write the state, to serve | the witness's secret is derived: it votes, it cannot pose as a node, and has no certificate | `a_witness_cannot_pose_as_a_node`, `the_witness_holds_the_secret_that_the_nodes_derive_and_nothing_else` |
//! | | two owners, by promising everybody | while the nodes hear each other, the peer's own promise. **Nothing** once they do not: the one whom both believe lies. Change the secret when the key may be known | `a_witness_that_promises_everybody_makes_no_second_owner_while_the_nodes_hear_each_other` |
//! | | no owner, by silence | the nodes' own two votes, while both live | `nobody_notices_a_dead_witness` |
//! | | a node's end, by senseless messages | limits before use; engines are fed with anything | `a_term_that_is_not_its_own_or_out_of_reach_is_refused`, module `hostile` |
//! | whoever has a node's key | everything that the node may: address, state, secrets, content | **nothing**. Make the cluster's secrets and certificates anew, on the other node first | |
//! | | the peer's end, by senseless frames and states | lengths and terms are checked before use, sessions are ended | `what_is_beyond_the_limits_is_refused`, `a_frame_beyond_the_limit_or_of_garbage_ends_the_session`, module `hostile` |
//! | old member, old datagrams | to be believed again | a life that was replaced never comes back; a release names life and term | `a_life_that_was_replaced_never_comes_back`, `old_secret_replayed_after_reelection`, `late_release_of_an_earlier_term` |
//! | | the same with the secret still in force | **nothing**: a member that left still has the keys. Change them | `both_secrets_open_while_one_is_being_replaced` |
//! | local user without rights | secrets, state | files 0600, folders 0700; a key that others can read is refused; no secret in a log | `keys_can_be_read_by_their_owner_alone`, `a_folder_open_to_others_is_made_private`, `a_keyring_never_shows_its_secret_in_a_log` |
//! | | to steer the node | the admin socket is its owner's alone | `the_socket_is_for_the_user_of_the_daemon_alone` |
//! | | the daemon's processor | priority where it is allowed; a late worker lets go by itself | `a_frozen_process_is_not_answered_for_after_its_lease_nor_when_it_thaws` |
//! | upstream server that means ill | other sites, the node | it answers its own requests only; its connection's fields end here; heads, stalls and breaks have limits | `what_is_between_server_and_proxy_does_not_reach_the_client`, `a_body_that_stalls_is_broken_off`, `a_response_that_the_server_breaks_off_does_not_pass_as_whole`, `a_response_head_that_is_too_large_is_502` |
//! | | a visitor, by what it serves | **nothing**: a body is passed on as it is | |
//! | disk that lies or dies | promises forgotten, state gone back | two copies of each promise; checksums; a commit counts once it is durable; errors are final | `a_promise_file_that_may_have_lost_its_newest_record_is_no_memory`, `a_store_that_went_back_in_time_says_so_until_it_is_settled`, `an_error_of_the_disk_is_final_and_loses_nothing_that_was_confirmed`, `a_node_whose_disk_fails_says_so_lets_go_and_comes_back_after_a_restart` |
//! | machine that was rolled back, state folder and all | promises forgotten | **nothing**: it cannot know. Its state is older than its peer's and gives way; its votes may be too many. Join it anew | `an_owner_below_a_higher_term_does_not_write_until_it_is_elected_above` |
//! | copy of a machine that runs beside it | two that answer | **nothing** while both say the same; two lives of one node are strangers to the voters | `a_life_that_was_replaced_never_comes_back` |
//! | operator who mistypes | no service | a configuration is checked whole, before anything is changed | `a_bad_file_tells_all_its_faults_with_their_lines_and_exits_78` |
//!
//! Not here: which incarnation is believed (`cluster`), sockets (`driver`).

pub mod identity;
pub mod keyring;
pub mod outside;
pub mod pki;
pub mod private;
pub mod seal;
pub mod site;
pub mod tickets;
pub mod tls;

pub use identity::Identity;
pub use keyring::{ClusterId, Keyring};
pub use private::TrustError;
pub use seal::{Claim, Kind, Notice, Opened, Opener, PAYLOAD_BYTES_MAX, Refused, Sealer, claim};
pub use tickets::{TicketSecrets, Tickets};

use crate::cluster::{Incarnation, Secret, SecretHash};
use aws_lc_rs::{digest, rand};

/// The first eight bytes of SHA-256, to tell two texts apart.
#[must_use]
pub fn digest(text: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Random bytes from the operating system.
///
/// # Panics
/// If there are none to be had: nothing that hawser promises can be kept then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A new incarnation.
#[must_use]
pub fn new_incarnation() -> Incarnation {
    Incarnation(u128::from_be_bytes(random()))
}

/// A new secret of an incarnation.
#[must_use]
pub fn new_secret() -> Secret {
    Secret(random())
}

/// The hash of an incarnation's secret: SHA-256.
#[must_use]
pub fn hash_secret(secret: &Secret) -> SecretHash {
    SecretHash(sha256(&secret.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_secret_is_its_sha_256() {
        // FIPS 180-4, SHA-256 of 32 zero bytes.
        let hash = hash_secret(&Secret([0; 32]));
        let hex: String = hash.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn no_two_incarnations_are_alike() {
        assert_ne!(new_incarnation(), new_incarnation());
        assert!(new_secret() != new_secret());
    }
}
