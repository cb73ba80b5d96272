use std::{
    fs,
    path::{Path, PathBuf},
};

use rust_hdf5::{Filter as H5Filter, FilterPipeline, H5File, H5Type};
use worldbench_core::Stream;
use worldbench_env::raster::Filter;

use super::*;
use crate::{
    DataError, Episode, FrameSpec,
    testing::{bits, episode, pixel_episode, store},
};

/// Episodes whose factors survive their columns: a scale is an f32 there.
fn episodes() -> Vec<Episode> {
    let mut all: Vec<_> = (0..4).map(|i| episode(9, i, 5 + 3 * i as usize)).collect();
    for (i, episode) in all.iter_mut().enumerate() {
        let changes =
            [("block.scale", vec![30.0 + i as f64 / 3.0]), ("block.color", vec![1.0, 2.0, i as f64])];
        let changes = changes.into_iter().map(|(name, values)| (name.to_string(), values)).collect();
        episode.info.factors = episode.info.env.scene(&changes).unwrap();
    }
    all
}

fn options(resolution: usize, episodes: &[usize]) -> ExportOptions {
    let frames = FrameSpec { resolution, filter: Filter::Linear };
    ExportOptions { frames, episodes: episodes.to_vec() }
}

fn read(path: &Path, options: ImportOptions) -> Result<(Vec<Episode>, ImportReport), DataError> {
    let mut all = Vec::new();
    let report = Importer::open(path)?.import(options, |episode| {
        all.push(episode.clone());
        Ok(())
    })?;
    Ok((all, report))
}

fn message(path: &Path) -> String {
    read(path, ImportOptions { check_pixels: true, ..Default::default() }).unwrap_err().to_string()
}

#[test]
fn an_exported_store_comes_back_bit_for_bit() {
    let all = episodes();
    let (guard, store) = store(&all);
    let path = guard.path().join("x.h5");
    let order = [3, 0, 2];
    let mut written = 0;
    let report = export(&store, &path, &options(16, &order), || written += 1).unwrap();
    assert_eq!((report.episodes, report.rows, written), (3, 14 + 5 + 11, 3));
    let (back, found) = read(&path, ImportOptions { check_pixels: true, ..Default::default() }).unwrap();
    for (back, index) in back.iter().zip(order) {
        assert_eq!(bits(back), bits(&all[index]));
    }
    assert_eq!((found.episodes, found.rows, found.factors), (3, 30, 17));
    assert_eq!((found.frames_checked, found.frames_identical), (30, 30));
    assert_eq!(found.drawn_from, Drawn::Recorded);

    let again = guard.path().join("y.h5");
    export(&store, &again, &options(16, &order), || ()).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap(), "two exports differ");
}

/// What Python readers of the layout rely on, beside the values.
#[test]
fn exported_columns_have_the_types_and_shapes_of_the_layout() {
    let (guard, store) = store(&episodes());
    let path = guard.path().join("x.h5");
    export(&store, &path, &options(16, &[0, 1]), || ()).unwrap();
    let file = H5File::open(&path).unwrap();
    for (name, datatype, shape) in [
        ("pixels", "u8", &[13, 16, 16, 3][..]),
        ("state", "f64", &[13, 7]),
        ("proprio", "f64", &[13, 4]),
        ("action", "f32", &[13, 2]),
        ("step_idx", "i64", &[13]),
        ("ep_idx", "i32", &[13]),
        ("ep_len", "i32", &[2]),
        ("ep_offset", "i64", &[2]),
        ("variation.block.color", "u8", &[13, 3]),
        ("variation.block.scale", "f32", &[13, 1]),
        ("variation.block.shape", "i64", &[13]),
    ] {
        let column = file.dataset(name).unwrap();
        assert_eq!((column.datatype().unwrap().to_string().as_str(), &column.shape()[..]), (datatype, shape));
        assert_eq!(column.max_shape().unwrap()[0], None, "{name} cannot grow");
    }
    let whole = |name| file.dataset(name).unwrap().read_numeric_as::<i64>().unwrap();
    assert_eq!((whole("ep_len"), whole("ep_offset")), (vec![5, 8], vec![0, 5]));
    assert_eq!(whole("step_idx"), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]);
    let actions = file.dataset("action").unwrap().read_raw::<f32>().unwrap();
    let missing: Vec<_> = (0..26).filter(|&i| actions[i].is_nan()).collect();
    assert_eq!(missing, [8, 9, 24, 25], "NaN in an episode's last row only");
}

#[test]
fn stored_frames_go_out_and_come_back_when_asked_for() {
    let original = pixel_episode(7, 4);
    let (guard, store) = store(std::slice::from_ref(&original));
    let path = guard.path().join("x.h5");
    let error = export(&store, guard.path().join("y.h5"), &options(16, &[0]), || ()).unwrap_err();
    assert!(error.to_string().contains("4 x 4"), "{error}");
    export(&store, &path, &options(4, &[0]), || ()).unwrap();
    let (back, _) = read(&path, ImportOptions { keep_pixels: true, ..Default::default() }).unwrap();
    assert_eq!(back[0].pixels, original.pixels);
    assert_eq!(read(&path, ImportOptions::default()).unwrap().0[0].pixels, None);
    assert!(message(&path).contains("16 to 512"));
}

#[test]
fn an_export_of_nothing_is_refused() {
    let (guard, store) = store(&episodes());
    let path = guard.path().join("x.h5");
    let error = export(&store, &path, &options(16, &[]), || ()).unwrap_err().to_string();
    assert!(error.contains("no episode is chosen") && error.contains("holds 4"), "{error}");
    assert!(!path.exists());
    let error = export(&store, &path, &options(16, &[4]), || ()).unwrap_err().to_string();
    assert!(error.contains("no episode 4"), "{error}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data/hdf5").join(name)
}

/// Written by h5py in the chunking of the reference, without our own columns; its README says how.
#[test]
fn files_of_h5py_are_read_in_all_their_compressions() {
    let all = ImportOptions { check_pixels: true, keep_pixels: true, ..Default::default() };
    let (plain, report) = read(&fixture("plain.h5"), all).unwrap();
    // As h5py prints them.
    let rows = &plain[0].rows;
    assert_eq!(rows[0].state[..3], [204.5651818644609, 312.6403230087913, 320.1443560402108]);
    assert_eq!(plain[1].rows[4].state[5..], [-45.75908279418945, 144.70469665527344]);
    assert_eq!(rows[0].action, [0.236_445_62, -0.043_957_76]);
    let pixels = &plain[0].pixels.as_ref().unwrap().data;
    assert_eq!(pixels[3 * 768..4 * 768].iter().map(|&v| u32::from(v)).sum::<u32>(), 192_132);

    assert_eq!((plain.len(), rows.len(), plain[1].rows.len()), (2, 7, 5));
    assert_eq!((report.factors, report.drawn_from), (1, Drawn::States));
    assert_eq!((report.frames_checked, report.frames_identical), (12, 12));
    assert_eq!(report.ignored, ["terminated"]);
    assert!(plain.iter().any(|e| e.rows.iter().any(|row| !row.render.marks.as_slice().is_empty())));
    for name in ["gzip.h5", "blosc.h5"] {
        let (other, same) = read(&fixture(name), all).unwrap();
        assert!(plain.iter().map(bits).eq(other.iter().map(bits)), "{name} differs");
        assert_eq!(same, report);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = fs::read(fixture("gzip.h5")).unwrap();
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("cut.h5");
    let cut = |length: usize| {
        fs::write(&path, &bytes[..length]).unwrap();
        message(&path)
    };
    assert!(
        cut(bytes.len() - 1).contains("it is cut short, 38871 bytes of 38872; copy or download it again")
    );
    assert!(cut(20).contains("cut short"));
    assert!(cut(0).contains("not an HDF5 file"));
    (0..bytes.len()).step_by(997).for_each(|length| assert!(cut(length).contains("cut.h5")));
}

#[test]
fn changed_bytes_give_errors_and_no_panic() {
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("bad.h5");
    let mut stream = Stream::new(7, "corrupt", &[]);
    let mut refused = 0;
    for name in ["plain.h5", "gzip.h5", "blosc.h5"] {
        let bytes = fs::read(fixture(name)).unwrap();
        for _ in 0..200 {
            let mut damaged = bytes.clone();
            let at = stream.below(bytes.len() as u64) as usize;
            damaged[at] ^= 1 << stream.below(8);
            fs::write(&path, damaged).unwrap();
            refused +=
                usize::from(read(&path, ImportOptions { check_pixels: true, ..Default::default() }).is_err());
        }
    }
    assert!(refused > 10, "only {refused} of 600 changes were noticed");
}

/// A file with `state`, `action` and `ep_len`, made by `change`.
fn file(path: &Path, change: impl FnOnce(&H5File)) {
    let _ = fs::remove_file(path);
    let file = H5File::create(path).unwrap();
    change(&file);
    file.close().unwrap();
}

fn put<T: H5Type>(file: &H5File, name: &str, shape: &[usize], values: &[T]) {
    file.new_dataset::<T>().shape(shape).create(name).unwrap().write_raw(values).unwrap();
}

/// Five rows: two episodes of 3 and 2 rows.
fn base(file: &H5File, state: bool, action: bool) {
    put(file, "ep_len", &[2], &[3i32, 2]);
    if state {
        put(file, "state", &[5, 7], &[200.0f64; 35]);
    }
    if action {
        put(file, "action", &[5, 2], &[0.5f32; 10]);
    }
}

#[test]
fn what_cannot_be_imported_is_named_with_its_remedy() {
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("x.h5");
    let refuse = |change: &dyn Fn(&H5File), expected: &[&str]| {
        file(&path, change);
        let message = read(&path, ImportOptions::default()).unwrap_err().to_string();
        assert!(message.contains("x.h5") && expected.iter().all(|part| message.contains(part)), "{message}");
    };
    refuse(&|f| put(f, "pixels", &[5, 2, 2, 3], &[0u8; 60]), &["no column `ep_len` (pixels)", "bincount"]);
    refuse(&|f| base(f, false, true), &["no column `state` (action, ep_len)", "pixels alone"]);
    refuse(&|f| base(f, true, false), &["no column `action`", "NaN in an episode's last"]);
    let with_state = |shape: &'static [usize]| {
        move |f: &H5File| {
            base(f, false, true);
            put(f, "state", shape, &vec![1.0f32; shape.iter().product()]);
        }
    };
    refuse(&with_state(&[5, 5]), &["column `state` has shape [5, 5], expected 7"]);
    refuse(&with_state(&[5, 2]), &["2 values a row, as in Two-Room", "--env two_room"]);
    refuse(&with_state(&[4, 7]), &["column `state` has 4 rows", "reach to 5"]);
    refuse(
        &|f| {
            base(f, false, true);
            put(f, "state", &[5, 7], &[200i64; 35]);
        },
        &["column `state` holds i64; expected float32 or float64"],
    );
    refuse(
        &|f| {
            base(f, true, false);
            put(f, "action", &[5, 2], &[f64::NAN, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        },
        &["episode 0", "row 0", "all rows but the last"],
    );
    refuse(
        &|f| {
            put(f, "ep_len", &[2], &[5i32, 0]);
            put(f, "state", &[5, 7], &[200.0f64; 35]);
        },
        &["episode 1 has 0 rows"],
    );
    refuse(
        &|f| {
            base(f, true, true);
            put(f, "variation.block.scale", &[5, 1], &[30.0f32, 30.0, 31.0, 30.0, 30.0]);
        },
        &["`variation.block.scale` changes within the episode"],
    );
    refuse(
        &|f| {
            base(f, true, true);
            put(f, "variation.block.scale", &[5, 1], &[99.0f32; 5]);
        },
        &["99 is outside 20 to 60"],
    );
    refuse(
        &|f| {
            base(f, false, true);
            f.new_dataset::<f64>().shape([5, 1 << 40]).chunk(&[5, 1 << 28]).create("state").unwrap();
        },
        &["chunks of at most 4 GiB"],
    );
    for (id, name) in [(32026, "Blosc2 (HDF5 filter 32026)"), (31_999, "unknown here (HDF5 filter 31999)")] {
        let filters = vec![H5Filter { id, flags: 0, cd_values: Vec::new() }];
        refuse(
            &|f| {
                base(f, false, true);
                let pipeline = FilterPipeline { filters: filters.clone() };
                f.new_dataset::<f64>()
                    .shape([5, 7])
                    .chunk(&[5, 7])
                    .filter_pipeline(pipeline)
                    .create("state")
                    .unwrap();
            },
            &[name, "compression='gzip'"],
        );
    }
    let text = guard.path().join("text.h5");
    fs::write(&text, "not what the name says").unwrap();
    assert!(message(&text).contains("it is not an HDF5 file"));
    assert!(message(&guard.path().join("none.h5")).contains("none.h5"));
}

/// The least that a file must have; scene and provenance then have their defaults.
#[test]
fn three_columns_are_enough() {
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("x.h5");
    file(&path, |f| base(f, true, true));
    let (back, report) = read(&path, ImportOptions::default()).unwrap();
    assert_eq!((back[0].rows.len(), back[1].rows.len(), report.factors), (3, 2, 0));
    assert!(back[1].rows[1].action[0].is_nan() && back[1].rows[0].action == [0.5; 2]);
    assert_ne!(back[0].info.source, back[1].info.source);
    assert!(message(&path).contains("no column `pixels`"));
    assert_eq!(store(&back).1.len(), 2);
}
