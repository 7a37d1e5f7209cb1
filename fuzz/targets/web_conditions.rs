//! Feeds the decoder "web_conditions": what it eats, and its rules, are in `hawser::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hawser_fuzz::eat("web_conditions", bytes));
