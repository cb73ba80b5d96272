use super::*;

/// See `make.py` beside the files.
fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name)
}

fn one(key: &str, shape: &[usize]) -> (String, Tensor) {
    let values = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
    (key.to_owned(), Tensor { shape: shape.to_vec(), values })
}

#[test]
fn pytorch_files_are_read_in_all_types_and_strides() {
    let state = StateDict::read(&fixture("state_dict.pt")).unwrap();
    for (key, shape, values) in [
        ("plain", &[2, 3][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]),
        ("transposed", &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        ("tail", &[2], &[4.0, 5.0]),
        ("half", &[2], &[0.5, -2.0]),
        ("bfloat", &[2], &[1.5, -3.0]),
        ("steps", &[], &[7.0]),
    ] {
        let expected = Tensor { shape: shape.to_vec(), values: values.to_vec() };
        assert_eq!(state.get(key), Some(&expected), "{key}");
    }
    assert_eq!(state.tensors().len(), 6);
}

#[test]
fn code_in_a_pickle_is_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("evil.pt");
    std::fs::copy(fixture("evil.pt"), &path).unwrap();
    let error = StateDict::read(&path).unwrap_err().to_string();
    assert!(error.contains("evil.pt"), "{error}");
    assert!(!Path::new("executed").exists() && !directory.path().join("executed").exists());
}

#[test]
fn damaged_files_end_in_errors_that_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("state_dict.pt")).unwrap();
    for cut in (0..whole.len()).step_by(97) {
        let path = directory.path().join("cut.pt");
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = StateDict::read(&path).unwrap_err().to_string();
        assert!(error.contains("cut.pt") && error.contains("again"), "{cut}: {error}");
    }
    // A flipped byte of a storage that a tensor spans fails its checksum.
    let mut flipped = whole.clone();
    let at = whole.windows(8).position(|w| w == 7i64.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    let path = directory.path().join("flipped.pt");
    std::fs::write(&path, flipped).unwrap();
    assert!(StateDict::read(&path).unwrap_err().to_string().contains("steps"));
    let path = directory.path().join("cut.safetensors");
    std::fs::write(&path, [9; 40]).unwrap();
    assert!(StateDict::read(&path).unwrap_err().to_string().contains("cut.safetensors"));
    let error = StateDict::read(Path::new("nowhere.pt")).unwrap_err().to_string();
    assert!(error.contains("nowhere.pt") && error.contains("check the path"), "{error}");
}

#[test]
fn misfits_are_all_named() {
    let state = StateDict::new("file", [one("a", &[2, 3]), one("b", &[4]), one("c", &[])].into());
    let needed = [("a".to_owned(), vec![3, 2]), ("b".to_owned(), vec![4]), ("d".to_owned(), vec![1])];
    let error = state.check(&needed, |_| false).unwrap_err().to_string();
    for part in
        ["file", "1/3 tensors", "`a` is [2, 3], the model needs [3, 2]", "missing `d`", "unexpected `c`"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(state.check(&needed[1..2], |key| key != "b").unwrap(), "1/1 tensors");
}

#[test]
fn a_part_loses_its_prefix_and_its_neighbours() {
    for prefix in ["", "backbone.", "backbone.backbone.", "model._orig_mod.backbone."] {
        let keys = ["cls.token", "layer.0"].map(|key| one(&format!("{prefix}{key}"), &[2]));
        let mut tensors: BTreeMap<String, Tensor> = keys.into();
        let other = one("predictor.weight", &[1]);
        tensors.insert(other.0, other.1);
        let part = StateDict::new("file", tensors).part("cls.token");
        let kept: Vec<&str> = part.tensors().keys().map(String::as_str).collect();
        let expected: &[&str] = if prefix.is_empty() {
            &["cls.token", "layer.0", "predictor.weight"]
        } else {
            &["cls.token", "layer.0"]
        };
        assert_eq!(kept, expected, "{prefix}");
    }
}

#[test]
fn the_digest_sees_settings_keys_shapes_and_values() {
    let digest = |settings: &str, tensor| StateDict::new("x", [tensor].into()).digest(settings);
    let base = digest("s", one("a", &[2, 3]));
    assert_eq!(base, digest("s", one("a", &[2, 3])));
    assert_eq!(base.len(), 64);
    let mut other = one("a", &[2, 3]);
    other.1.values[5] += 1e-6;
    for changed in [
        digest("t", one("a", &[2, 3])),
        digest("s", one("b", &[2, 3])),
        digest("s", one("a", &[3, 2])),
        digest("s", other),
    ] {
        assert_ne!(base, changed);
    }
}
