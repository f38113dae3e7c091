//! Templates against what Go's `text/template` gives for them.

use super::*;
use serde_json::json;

fn data() -> serde_json::Value {
    json!({
        "Name": "web",
        "Id": "0123456789abcdef",
        "Count": 3,
        "Ratio": 0.5,
        "On": true,
        "Off": false,
        "Empty": "",
        "Env": ["A=1", "B=2"],
        "None": [],
        "Labels": {"b": "two", "a": "one"},
        "Config": {"Image": "busybox", "Cmd": ["sh", "-c"], "Size": 1},
        "NetworkSettings": {
            "Networks": {"net": {"IPAddress": "10.0.0.2", "IPAMConfig": null, "Aliases": null}},
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
        },
        "Mounts": [{"Type": "bind", "Source": "/a"}, {"Type": "volume", "Source": "/b"}],
    })
}

/// Evaluates as `inspect` does: with types, and over plain maps where that fails.
fn evaluate(text: &str) -> Result<String, String> {
    let template = Template::parse(text)?;
    template
        .execute(&Value::typed(&data(), ""), MissingKey::NoValue)
        .or_else(|_| template.execute(&Value::raw(&data()), MissingKey::Error))
}

#[test]
fn templates_give_what_go_gives() {
    let cases: &[(&str, &str)] = &[
        ("plain", "plain"),
        ("", ""),
        ("{{.Name}}", "web"),
        ("{{ .Name }}-{{.Count}}", "web-3"),
        ("{{.Ratio}} {{.On}} {{.Off}}", "0.5 true false"),
        ("{{.ID}}", "0123456789abcdef"),
        ("{{.Config.Image}}", "busybox"),
        ("{{.Env}}", "[A=1 B=2]"),
        ("{{.Labels}}", "map[a:one b:two]"),
        ("{{.Config}}", "{busybox [sh -c] 1}"),
        ("{{.Mounts}}", "[{bind /a} {volume /b}]"),
        ("{{.Labels.a}} {{.Labels.zz}}", "one <no value>"),
        ("{{index .Labels \"b\"}}{{index .Labels \"zz\"}}", "two"),
        ("{{index .Env 1}}", "B=2"),
        ("{{json .Config}}", r#"{"Image":"busybox","Cmd":["sh","-c"],"Size":1}"#),
        ("{{json .Name}} {{.Env | json}}", r#""web" ["A=1","B=2"]"#),
        ("{{.NetworkSettings.Networks.net.Aliases}}", "[]"),
        ("{{.NetworkSettings.Networks.net.IPAMConfig}}", "<nil>"),
        ("{{json .NetworkSettings.Networks.net.Aliases}}", "null"),
        // control
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}yes{{else}}no{{end}}", "no"),
        ("{{if .Off}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        ("{{if .Off}}a{{else if .Off}}b{{else}}c{{end}}", "c"),
        ("{{if not .None}}empty{{end}}", "empty"),
        ("{{if and .On .Name}}both{{end}} {{or .Empty \"default\"}}", "both default"),
        ("{{with .Config}}{{.Image}}{{end}}", "busybox"),
        ("{{with .Empty}}x{{else}}nothing{{end}}", "nothing"),
        ("{{with .Empty}}x{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "web"),
        ("{{with index .NetworkSettings.Networks \"net\"}}{{.IPAddress}}{{end}}", "10.0.0.2"),
        ("{{with index .NetworkSettings.Networks \"nosuch\"}}{{.IPAddress}}{{end}}", ""),
        ("{{range .Env}}{{.}};{{end}}", "A=1;B=2;"),
        ("{{range $v := .Env}}{{$v}},{{end}}", "A=1,B=2,"),
        ("{{range $i, $v := .Env}}{{$i}}={{$v}} {{end}}", "0=A=1 1=B=2 "),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a:one b:two "),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range .Mounts}}{{.Type}}{{end}}", "bindvolume"),
        ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{$v.IPAddress}}{{end}}", "net 10.0.0.2"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{range $c}}{{.HostPort}}{{end}} {{end}}",
            "80/tcp->8080 81/tcp-> ",
        ),
        ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostIP}}", "0.0.0.0"),
        ("{{range .Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ("{{range .Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}", "B=2"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{range .Env}}{{$.Name}} {{end}}", "web web "),
        // space
        ("a {{- .Name -}} b", "awebb"),
        ("{{- /* comment */ -}} x", "x"),
        ("a{{/* comment */}}b", "ab"),
        ("{{\"quoted\\t\\\"x\\\"\"}}{{`raw\\n`}}", "quoted\t\"x\"raw\\n"),
        // functions
        ("{{len .Env}} {{len .Labels}} {{len .Name}} {{len .None}}", "2 2 3 0"),
        ("{{slice .Id 0 12}}", "0123456789ab"),
        ("{{slice .Id 4}} {{slice .Env 1}}", "456789abcdef [B=2]"),
        (
            "{{eq .Count 3}} {{ne .Name \"x\"}} {{lt .Count 4}} {{le 3 3}} {{gt 1 2}} {{ge 2 2}}",
            "true true true true false true",
        ),
        ("{{eq .Name \"a\" \"b\" \"web\"}}", "true"),
        ("{{and 1 0}} {{or 0 2}} {{not 0}}", "0 2 true"),
        ("{{print 1 2 \"x\" 3}} {{println .Name}}", "1 2x3 web\n"),
        ("{{print \"a\" \"b\"}}", "ab"),
        (
            "{{printf \"%s-%d|%5s|%-5s|%05d|%x|%v|%q|%t|%%\" .Name .Count \"a\" \"b\" 42 255 .Env \"q\" true}}",
            "web-3|    a|b    |00042|ff|[A=1 B=2]|\"q\"|true|%",
        ),
        (
            "{{printf \"%.2f %s\" 1.5 \"x\"}} {{printf \"%d\" \"x\"}} {{printf \"%s\"}}",
            "1.50 x %!d(string=x) %!s(MISSING)",
        ),
        ("{{.Name | printf \"%s!\" | upper}}", "WEB!"),
        ("{{join .Env \",\"}} {{split \"a:b\" \":\"}}", "A=1,B=2 [a b]"),
        ("{{title \"hello world\"}} {{lower \"ABC\"}} {{upper .Name}}", "Hello World abc WEB"),
        ("{{pad .Name 1 2}}|{{truncate .Id 4}}", " web  |0123"),
        ("{{index (split .Id \"4\") 0}}", "0123"),
        ("{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .Name}}", "[web]"),
        ("{{html \"<a>\"}} {{urlquery \"a b&c\"}}", "&lt;a&gt; a+b%26c"),
        ("{{1.5}} {{0x10}} {{-3}} {{'a'}} {{true}}", "1.5 16 -3 97 true"),
        ("{{1e21}} {{100000000.0}}", "1e+21 1e+08"),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(text).as_deref(), Ok(*expected), "{text}");
    }
}

#[test]
fn errors_are_go_s() {
    let cases: &[(&str, &str)] = &[
        ("{{ .", "template: :1: illegal number syntax: \".\""),
        ("{{.Name", "template: :1: unclosed action"),
        ("{{nosuch}}", "template: :1: function \"nosuch\" not defined"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{if .On}}x", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{\"abc}}", "template: :1: unterminated quoted string"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{.Foo}}", "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
        (
            "{{.Config.Foo.Bar}}",
            "template: :1:9: executing \"\" at <.Config.Foo.Bar>: map has no entry for key \"Foo\"",
        ),
        ("a\n{{.Name.X}}", "template: :2:7: executing \"\" at <.Name.X>: can't evaluate field X in type interface {}"),
        (
            "{{index .Env 5}}",
            "template: :1:2: executing \"\" at <index .Env 5>: error calling index: index out of range: 5",
        ),
        (
            "{{(index .Labels \"zz\").X}}",
            "template: :1:17: executing \"\" at <\"zz\">: nil data; no entry for key \"X\"",
        ),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        ("{{range .Name}}{{end}}", "template: :1:8: executing \"\" at <.Name>: range can't iterate over web"),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(text).unwrap_err(), *expected, "{text}");
    }
}
