#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onggi_fuzz::challenge::feed(bytes));
