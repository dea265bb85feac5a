//! Patterns of real daemons against what strangers and hostile users make those daemons write.

use super::*;
use Cause::{Client, Stranger};

const DOVECOT: &str = r"^(?:pop3|imap)-login: (?:Login|Logged in): user=<(?<user>[^<>\n]{1,255})>, method=[A-Z0-9-]+, rip=(?<address>IP), lip=IP(?:, mpid=\d+)?(?:, (?:TLS|secured|SSL))?(?:, TLSv[^,<>]*)?(?:, session=<[^<>]*>)?$";
const DOVECOT_FAILED: &str = r"(?:pop3|imap)-login: (?:Login aborted|Aborted login|Disconnected)(?:: [^\x00-\x1f]{1,200})? \([^\x00-\x1f]{1,200}\): user=<[^\x00-\x1f]{0,80}>(?:, method=[^\x00-\x20a-z]{0,80})?, rip=CLIENT, lip=IP(?:, TLS|, secured)?, session=<[!-~]{1,60}>";
const DOVECOT_LOGIN: &str = r"imap-login: Login: user=<[^\x00-\x1f]{1,80}>, method=[A-Z0-9-]{1,20}, rip=CLIENT, lip=IP, mpid=\d{1,7}, session=<[!-~]{1,60}>";
const COURIER: &str =
    r"^LOGIN, user=(?<user>.{1,255}), ip=\[(?<address>IP)\], port=\[\d{1,5}\](?:, stls=1)?$";
const COURIER_FAILED: &str =
    r"LOGIN FAILED, (?:user=[ -~]{0,900}|method=[!-~]{0,80}), ip=\[CLIENT\](?:, port=\[\d{1,5}\])?";
const COURIER_LOGIN: &str =
    r"LOGIN, user=[^\x00\n]{1,400}, ip=\[CLIENT\], port=\[\d{1,5}\](?:, stls=1)?";
/// What a logger that cuts long lines leaves of one: text of the client, as long as the cut.
const COURIER_PIECE: &str = r"[ -~]{511}";
const VM_POP3D: &str =
    r"^(?:APOP )?User '(?<user>[^'\n]{1,255})' logged in from (?<address>IP), nmsgs=\d{1,10}$";
const VM_POP3D_FAILED: &str =
    r"(?:APOP )?User '[^\x00\n]{0,500}' - failed auth, from=(?<client>[0-9.]{7,15})";
const PERDITION: &str = r#"^Auth: (?<address>IP):\d+->IP:\d+ client-secure=\S+ authorisation_id=\S+ authentication_id="(?<user>[^"\n]+)" server="[^"]*" protocol=\w+ server-secure=\S+ status="ok"$"#;
const PERDITION_FAILED: &str = r#"Auth: CLIENT:\d{1,5}->IP:\d{1,5} client-secure=[a-z]+ authorisation_id=NONE authentication_id="[^\x00\n]{0,1000}" server="[0-9A-Za-z.:-]{0,100}" protocol=[A-Z0-9]+ server-secure=[a-z]+ status="failed: [^"\n]{1,200}""#;
const IMAPPROXY: &str = r#"^LOGIN: '"?(?<user>[^'"\n]{1,255})"?' \((?<address>IP):\d{1,5}\) on (?:new|existing) sd \[\d+\]$"#;
const IMAPPROXY_FAILED: &str =
    r"LOGIN: '[^\x00]{0,255}' \(CLIENT:\d{1,5}\) failed: [^\x00]{0,300}: NO bad login";
const TEAPOP: &str =
    r"^Successful login for (?<user>\S{1,255}) \[IP\] from \S+ \[(?<address>IP)\]$";
const TEAPOP_LOGIN: &str =
    r"Successful login for [^\x00-\x20]{1,249} \[IP\] from [!-~]{1,255} \[CLIENT\]";
const TPOP3D: &str = r"^fork_child: \[\d+\](?<user>\S{1,255})\((?<address>IP)\): began session for `(?<again>\S{1,255})' with \S+; child PID is \d+$";
const TPOP3D_LOGIN: &str = r"fork_child: \[\d{1,5}\][!-~]{1,500}\((?<client>[0-9.]{7,15})\): began session for `[!-~]{1,500}' with [a-z]+; child PID is \d{1,7}";
const TPOP3D_VERBOSE: &str = r"pop3_parse_command: `[^\x00\n]{0,600}'";

fn written_out(text: &str) -> String {
    text.replace("CLIENT", "(?<client>[0-9A-Fa-f:.]{2,45})").replace("IP", "[0-9A-Fa-f:.]+")
}

fn pattern(text: &str, conditions: Conditions) -> Pattern {
    Pattern::new(&written_out(text), conditions).expect("a pattern")
}

fn shape(text: &str, cause: Cause) -> Shape {
    Shape::new(&written_out(text), cause).expect("a shape")
}

fn courier() -> Conditions {
    Conditions { once: vec![", ip=[".into()], max_length: Some(499), ..Conditions::default() }
}

fn tpop3d() -> Conditions {
    Conditions { same: vec![["user".into(), "again".into()]], ..Conditions::default() }
}

#[test]
fn safe_patterns_are_proved() {
    let none = Conditions::default;
    let rows: &[(&str, Conditions, &str, Cause)] = &[
        (DOVECOT, none(), DOVECOT_FAILED, Stranger),
        (DOVECOT, none(), DOVECOT_LOGIN, Client),
        (COURIER, courier(), COURIER_FAILED, Stranger),
        (COURIER, courier(), COURIER_PIECE, Stranger),
        (COURIER, courier(), COURIER_LOGIN, Client),
        (VM_POP3D, none(), VM_POP3D_FAILED, Stranger),
        (PERDITION, none(), PERDITION_FAILED, Stranger),
        (IMAPPROXY, none(), IMAPPROXY_FAILED, Stranger),
        (TEAPOP, none(), TEAPOP_LOGIN, Client),
        (TPOP3D, tpop3d(), TPOP3D_LOGIN, Client),
        (TPOP3D, tpop3d(), TPOP3D_VERBOSE, Stranger),
    ];
    for (text, conditions, of, cause) in rows {
        let verdict = prove(&pattern(text, conditions.clone()), &shape(of, *cause));
        assert!(matches!(verdict, Verdict::Proved { .. }), "{text}\n{of}\n{verdict:?}");
    }
}

#[test]
fn weakened_patterns_are_forged() {
    let no = Conditions::default;
    let long = || Conditions { max_length: None, ..courier() };
    let lazy = COURIER.replace(".{1,255}", ".{1,255}?");
    let endless_port = COURIER.replace(r"\d{1,5}", r"\d+").replace("IP", "[0-9a-f:.]{2,45}");
    let loose_session =
        DOVECOT.replace("[^<>]*>)?$", ".*>)?$").replace(r"[^<>\n]{1,255}", ".{1,255}?");
    let first_bracket =
        TEAPOP.replace(r"\[IP\] from \S+ \[(?<address>IP)\]$", r"\[(?<address>IP)\]");
    let rows: &[(&str, Conditions, &str, Cause)] = &[
        (unanchored(DOVECOT), no(), DOVECOT_FAILED, Stranger),
        (&loose_session, no(), DOVECOT_LOGIN, Client),
        (unended(&lazy), no(), COURIER_LOGIN, Client),
        (unanchored(COURIER), courier(), COURIER_FAILED, Stranger),
        (&endless_port, long(), COURIER_PIECE, Stranger),
        (unended(VM_POP3D), no(), VM_POP3D_FAILED, Stranger),
        (unended(PERDITION), no(), PERDITION_FAILED, Stranger),
        (unended(IMAPPROXY), no(), IMAPPROXY_FAILED, Stranger),
        (&first_bracket, no(), TEAPOP_LOGIN, Client),
        (unended(unanchored(TPOP3D)), tpop3d(), TPOP3D_VERBOSE, Stranger),
    ];
    for (text, conditions, of, cause) in rows {
        let verdict = prove(&pattern(text, conditions.clone()), &shape(of, *cause));
        let Verdict::Forged { message, address: Some(address) } = &verdict else {
            panic!("{text}\n{of}\n{verdict:?}")
        };
        let pattern = Regex::new(&written_out(text)).unwrap();
        assert_eq!(&pattern.captures(message).unwrap()["address"], address, "{message}");
        let shape = Regex::new(&format!("^(?:{})$", written_out(of))).unwrap();
        assert!(shape.is_match(message), "{message}");
        assert!(address::read(address).is_ok(), "{message}");
    }
}

fn unanchored(pattern: &str) -> &str {
    pattern.strip_prefix('^').expect("an anchor")
}

fn unended(pattern: &str) -> &str {
    pattern.strip_suffix('$').expect("an anchor")
}

#[test]
fn conditions_are_part_of_the_proof() {
    let twice = unended(COURIER);
    let once = |text: &str| Conditions { once: vec![text.into()], ..Conditions::default() };
    // A second `, ip=[` is the only way to deceive this pattern.
    let login = shape(COURIER_LOGIN, Client);
    assert!(matches!(prove(&pattern(twice, once(", ip=[")), &login), Verdict::Proved { .. }));
    // Text that is not there at all refuses everything, text that is always there nothing.
    let failed = shape(VM_POP3D_FAILED, Stranger);
    let weak = |text| prove(&pattern(unended(VM_POP3D), once(text)), &failed);
    assert!(matches!(weak("\n"), Verdict::Proved { .. }));
    assert!(matches!(weak("failed auth"), Verdict::Forged { .. }));
}

#[test]
fn what_is_not_proved_is_not_called_proved() {
    let same = Conditions { same: vec![["a".into(), "b".into()]], ..Conditions::default() };
    let differ = pattern("^(?<a>x+)-(?<b>[xy]+)$", same);
    let rows = [
        (prove(&differ, &shape("x{2}-x{3}", Stranger)), Refusal::Same(["a".into(), "b".into()])),
        (
            prove(&pattern("^u=(?<user>.*)$", Conditions::default()), &shape("u=", Stranger)),
            Refusal::User,
        ),
        (
            prove(
                &pattern("^(?<address>IP)$", Conditions::default()),
                &shape("[a-f]{4}", Stranger),
            ),
            Refusal::Address(address::NotAClient::Malformed),
        ),
        // The matcher takes the last ` ip=`, but the search sees all readings.
        (
            prove(
                &pattern("^user=(?<user>.+) ip=(?<address>IP)(?: .*)?$", Conditions::default()),
                &shape("user=[ -~]{1,40} ip=CLIENT", Client),
            ),
            Refusal::OwnAddress,
        ),
    ];
    for (verdict, expected) in rows {
        let Verdict::Undecided(Doubt::Refused { refusal, .. }) = &verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(*refusal, expected, "{verdict:?}");
    }
    let wide = "^[a-z ]{0,900} [a-z ]{0,900} [a-z ]{0,900}";
    let verdict = prove(
        &pattern(&format!("{wide}1$"), Conditions::default()),
        &shape(&format!("{wide}2$"), Stranger),
    );
    assert_eq!(verdict, Verdict::Undecided(Doubt::TooLarge));
}

#[test]
fn a_pattern_without_an_address_gives_none() {
    let half = pattern(r"^User '(?<user>[^']{1,255})' logged in$", Conditions::default());
    let any = r"User '.{1,80}' logged in";
    assert_eq!(prove(&half, &shape(any, Client)), Verdict::Proved { states: 0 });
    let verdict = prove(&half, &shape(any, Stranger));
    assert!(matches!(verdict, Verdict::Forged { address: None, .. }), "{verdict:?}");
    let silent = shape(r"Connect from [0-9.]{7,15}", Client);
    let connect = pattern(r"^Connect from (?<address>IP)$", Conditions::default());
    assert!(matches!(prove(&connect, &silent), Verdict::Forged { .. }), "no client group");
}

#[test]
fn what_cannot_be_examined_is_said() {
    let once = |text: &str| Conditions { once: vec![text.into()], ..Conditions::default() };
    let same = Conditions { same: vec![["a".into(), "b".into()]], ..Conditions::default() };
    let many = Conditions { once: vec!["a".repeat(64); 4], ..Conditions::default() };
    let rows = [
        (Pattern::new(r"^a\b$", Conditions::default()), Fault::Assertion),
        (Pattern::new(r"(?m)^a$", Conditions::default()), Fault::Assertion),
        (Pattern::new(r"^\w{255}{255}$", Conditions::default()), Fault::TooLarge),
        (Pattern::new(r"^(?:(?:a?){100}){100}$", Conditions::default()), Fault::TooLarge),
        (Pattern::new("^a$", once("")), Fault::Once(String::new())),
        (Pattern::new("^a$", once(&"x".repeat(65))), Fault::Once("x".repeat(65))),
        (Pattern::new("^a$", many), Fault::TooLarge),
        (Pattern::new("^(?<a>a)$", same), Fault::NoGroup("b".into())),
    ];
    for (pattern, expected) in rows {
        assert_eq!(pattern.err(), Some(expected));
    }
    assert!(matches!(Pattern::new("^(a$", Conditions::default()).err(), Some(Fault::Syntax(_))));
    assert_eq!(Shape::new(r"\ba", Stranger).err(), Some(Fault::Assertion));
}
