use std::collections::HashMap;
use std::path::Path;

use super::*;

const FILE: File = File { repository: "owner/model", name: "weights.bin" };

fn hub(cache: &Path, endpoint: &str, offline: bool) -> Hub {
    Hub { cache: cache.to_owned(), endpoint: endpoint.to_owned(), token: Some("secret".into()), offline }
}

#[test]
fn the_environment_is_honoured() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "stored\n").unwrap();
    let path = home.path().display().to_string();
    let variables = |pairs: &[(&str, &str)]| {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Hub::from_variables(|name| map.get(name).cloned())
    };
    let hub = variables(&[("HF_HOME", &path), ("HF_HUB_OFFLINE", "1")]);
    assert_eq!((hub.cache, hub.offline, hub.token), (home.path().join("hub"), true, Some("stored".into())));
    let hub = variables(&[("HOME", "/h"), ("HF_TOKEN", "own"), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!(hub.cache, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!((hub.token, hub.offline), (Some("own".into()), false));
    assert_eq!(variables(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", &path)]).cache, Path::new("/c"));
    assert_eq!(variables(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
}

#[test]
fn a_missing_file_is_named_with_address_and_place() {
    let cache = tempfile::tempdir().unwrap();
    let error = hub(cache.path(), "https://hub", true).locate(FILE).unwrap_err();
    assert_eq!(error.url, "https://hub/owner/model/resolve/main/weights.bin");
    // Put where the message says, it is found.
    std::fs::create_dir_all(Path::new(&error.place).parent().unwrap()).unwrap();
    std::fs::write(&error.place, "by hand").unwrap();
    assert_eq!(hub(cache.path(), "https://hub", true).locate(FILE).unwrap(), Path::new(&error.place));
    let text = error.to_string();
    assert!(
        text.contains("HF_HUB_OFFLINE") && text.contains(&error.url) && text.contains("`weights`"),
        "{text}"
    );
}

#[test]
fn the_named_revision_comes_before_others() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--owner--model");
    for revision in ["aaa", "bbb"] {
        std::fs::create_dir_all(folder.join("snapshots").join(revision)).unwrap();
        std::fs::write(folder.join("snapshots").join(revision).join("weights.bin"), revision).unwrap();
    }
    let read = || std::fs::read_to_string(hub(cache.path(), "", true).locate(FILE).unwrap()).unwrap();
    assert_eq!(read(), "aaa");
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), "bbb\n").unwrap();
    assert_eq!(read(), "bbb");
}

#[cfg(feature = "hub")]
mod downloads {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// Answers one request after the other; returns its address and a handle to the requests seen.
    fn server(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serve = move || {
            let one = |answer: String| {
                let mut stream = listener.accept().unwrap().0;
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                stream.write_all(answer.as_bytes()).unwrap();
                request.join("\n")
            };
            answers.into_iter().map(one).collect()
        };
        (address, std::thread::spawn(serve))
    }

    fn answer(status: &str, length: usize, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    #[test]
    fn a_download_lands_in_the_cache_once() {
        let cache = tempfile::tempdir().unwrap();
        let commit = r#"{"sha":"abc123"}"#;
        let answers = vec![answer("200 OK", commit.len(), commit), answer("200 OK", 7, "weights")];
        let (address, seen) = server(answers);
        let path = hub(cache.path(), &address, false).locate(FILE).unwrap();
        assert!(path.ends_with("models--owner--model/snapshots/abc123/weights.bin"), "{path:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "weights");
        let seen = seen.join().unwrap();
        assert!(seen[0].starts_with("GET /api/models/owner/model/revision/main "), "{seen:?}");
        assert!(seen[1].starts_with("GET /owner/model/resolve/abc123/weights.bin "), "{seen:?}");
        assert!(seen.iter().all(|request| request.contains("authorization: Bearer secret")), "{seen:?}");
        // The server is gone: the second look needs no network.
        assert_eq!(hub(cache.path(), &address, false).locate(FILE).unwrap(), path);
    }

    #[test]
    fn failures_leave_nothing_behind_and_say_why() {
        let commit = r#"{"sha":"abc123"}"#;
        let evil = r#"{"sha":"../../x"}"#;
        for (answers, part) in [
            (vec![answer("401 Unauthorized", 0, "")], "set HF_TOKEN"),
            (vec![answer("404 Not Found", 0, "")], "HTTP 404"),
            (vec![answer("200 OK", evil.len(), evil)], "names no commit"),
            (vec![answer("200 OK", commit.len(), commit), answer("200 OK", 99, "weights")], "weights.bin"),
        ] {
            let cache = tempfile::tempdir().unwrap();
            let (address, seen) = server(answers);
            let error = hub(cache.path(), &address, false).locate(FILE).unwrap_err();
            assert!(error.problem.contains(part), "{error}");
            seen.join().unwrap();
            let left = cache.path().join("models--owner--model/snapshots/abc123");
            assert_eq!(std::fs::read_dir(left).map_or(0, Iterator::count), 0);
        }
    }

    #[test]
    fn no_connection_is_no_panic() {
        let cache = tempfile::tempdir().unwrap();
        let error = hub(cache.path(), "http://127.0.0.1:9", false).locate(FILE).unwrap_err();
        assert!(error.problem.contains("no connection"), "{error}");
    }
}
