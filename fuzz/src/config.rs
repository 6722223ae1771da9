//! Image configs: read or refused, and what is read says the same once more.

use onggi_oci::ImageConfig;
use onggi_testkit::ImageMaker;

/// One config.
pub fn feed(bytes: &[u8]) {
    if let Ok(config) = ImageConfig::parse(bytes) {
        let written = config.to_bytes();
        let again = ImageConfig::parse(&written).expect("what onggi writes it also reads");
        assert_eq!(again.to_bytes(), written, "written twice it differs");
    }
}

/// Configs as images have them.
pub fn seeds() -> Vec<Vec<u8>> {
    let small = ImageMaker::new().layer(&[("a", b"1")]).layer(&[("b", b"2")]).cmd(&["sh", "-c", "x"]);
    let full = small
        .clone()
        .set("User", "1000:1000")
        .set("Env", vec!["PATH=/bin", "A=", "B"])
        .set("WorkingDir", "/w")
        .set("StopSignal", "SIGINT")
        .set("Volumes", serde_json::json!({ "/data": {} }))
        .set("ExposedPorts", serde_json::json!({ "80/tcp": {}, "53/udp": {} }))
        .set("Labels", serde_json::json!({ "a": "b", "": "c" }))
        .set("Entrypoint", serde_json::json!(["/init"]))
        .set("OnBuild", vec!["RUN x"])
        .set(
            "Healthcheck",
            serde_json::json!({ "Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 3 }),
        );
    vec![small.build().config.to_vec(), full.docker().build().config.to_vec()]
}
