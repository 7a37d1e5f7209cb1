//! What a route to files says.

use super::*;

const FILES: &str = r#"root = "/srv/www"
index = ["start.html", "index.html"]
fallback = "/app/index.html"
listing = true
symlinks = "none"
dotfiles = "show"
precompressed = false
compress = false
types = { geo = "application/geo+json", ".MD" = "text/markdown; charset=utf-8" }
cache_control = { "*" = "no-cache", "/assets/*" = "max-age=31536000, immutable", "*.css" = "max-age=60" }
"#;

fn with_files() -> String {
    GOOD.replacen("root = \"/srv/www\"\n", FILES, 1) + "\n[web]\nfile_cache_mib = 16\n"
}

#[test]
fn how_a_folder_is_shown_is_read_and_what_is_left_out_is_safe() {
    let files = |text: &str| {
        let config = good(text);
        let routes = &config.web.listeners[0].routes;
        let files = routes.iter().find_map(|route| match &route.action {
            RouteAction::Static(files) => Some(files.clone()),
            RouteAction::Proxy { .. } | RouteAction::ToHttps { .. } => None,
        });
        (files.unwrap(), config.web.file_cache_bytes)
    };
    let (usual, bytes) = files(GOOD);
    assert_eq!((usual.symlinks, usual.dotfiles, usual.listing), (Symlinks::Inside, DotFiles::Hide, false));
    assert_eq!((usual.precompressed, usual.compress, usual.fallback), (true, true, None));
    assert_eq!((usual.index, bytes), (vec!["index.html".to_owned()], 64 << 20));
    let (all, bytes) = files(&with_files());
    assert_eq!((all.root, all.fallback), ("/srv/www".into(), Some("app/index.html".into())));
    assert_eq!((all.symlinks, all.dotfiles, all.listing), (Symlinks::None, DotFiles::Show, true));
    assert_eq!((all.precompressed, all.compress, bytes), (false, false, 16 << 20));
    assert_eq!(all.index, ["start.html", "index.html"]);
    assert_eq!(all.types["geo"], "application/geo+json");
    assert_eq!(all.types["md"], "text/markdown; charset=utf-8");
    let order: Vec<&str> = all.cache_control.iter().map(|(pattern, _)| pattern.as_str()).collect();
    assert_eq!(order, ["/assets/*", "*.css", "*"], "the most particular first");
}

#[test]
fn faults_about_files_are_told_with_line_and_help() {
    for (from, to, fault) in [
        ("\"start.html\"", "\"a/b.html\"", "27: listener[0].index[0]: \"a/b.html\" is not a file name"),
        (
            "/app/index.html",
            "../index.html",
            "28: listener[0].fallback: \"../index.html\" is not a file below the root",
        ),
        ("listing = true", "listing = 1", "29: listener[0].listing: is an integer, and a boolean is needed"),
        ("\"none\"", "\"outside\"", "30: listener[0].symlinks: \"outside\" is not known; write \"none\" or \"inside\""),
        ("\"show\"", "\"no\"", "31: listener[0].dotfiles: \"no\" is not known; write \"hide\" or \"show\""),
        (
            "compress = false\ntypes",
            "compres = false\ntypes",
            "33: listener[0].compres: unknown key; did you mean \"compress\"?",
        ),
        ("application/geo+json", "geo", "34: listener[0].types.geo: \"geo\" is not a media type"),
        ("\".MD\"", "\"a.b\"", "34: listener[0].types.a.b: \"a.b\" is not an extension"),
        ("\"*.css\"", "\"assets/*\"", "35: listener[0].cache_control.assets/*: \"assets/*\" is not a pattern"),
        ("max-age=60", "", "35: listener[0].cache_control.*.css: \"\" is not a value of Cache-Control"),
        ("root = \"/srv/www\"\n", "", "26: listener[0].index: belongs to a root"),
        (
            "root = \"/srv/www\"",
            "redirect = \"https\"",
            "27: listener[0].index: is for files; leave it out beside redirect",
        ),
        (
            "root = \"/srv/www\"",
            "upstream = \"app\"",
            "35: listener[0].cache_control: is for files; leave it out beside upstream",
        ),
        ("= 16", "= -1", "file_cache_mib: -1 is out of bounds; write a number from 0"),
    ] {
        let text = with_files();
        assert!(text.contains(from), "{from}");
        let told = faults(&text.replacen(from, to, 1));
        assert!(told.iter().any(|line| line.contains(fault)), "{fault}: {told:#?}");
    }
}
