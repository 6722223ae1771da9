#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onggi_fuzz::config::feed(bytes));
