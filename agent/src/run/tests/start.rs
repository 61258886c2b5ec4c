//! Which bonds are taken over first, and what goes on meanwhile.

use super::*;

/// The kernel has told by then that the first or second cable of a bond is pulled.
fn pull(links: &mut RouteSocket, bond: usize, port: usize) {
    ip(&format!("link set q{bond}-{port} down"));
    let near = format!("p{bond}-{port}");
    while links.by_name(&near).unwrap().unwrap().is_running() {}
}

/// The bond that is taken over next; none within a long time.
fn next_adopted(world: &mut AgentUnderTest) -> Option<String> {
    let limit = Instant::now() + LIMIT;
    while Instant::now() < limit {
        let adopted = world.turn().0.into_iter().find_map(|call| match call {
            script::Call::Adopt(bond) => Some(bond),
            _ => None,
        });
        if adopted.is_some() {
            return adopted;
        }
    }
    None
}

#[test]
fn bonds_whose_traffic_is_lost_are_taken_over_first_and_then_those_that_miss_a_port() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("dead");
        let mut links = RouteSocket::open().unwrap();
        for backup in [2, 3] {
            pull(&mut links, backup, 1);
        }
        pull(&mut links, 8, 0);
        ip("link del p9-0");
        world.start_again();
        for bond in ["bond8", "bond9", "bond2", "bond3", "bond0"] {
            assert_eq!(next_adopted(&mut world).as_deref(), Some(bond));
        }
        pull(&mut links, 10, 0);
        assert_eq!(
            next_adopted(&mut world).as_deref(),
            Some("bond10"),
            "it has just failed"
        );
        ip("link del p7-1");
        assert_eq!(next_adopted(&mut world).as_deref(), Some("bond7"));
        while !world.agent.instances.lock().has_started() {
            world.turn();
        }
        let listed = world.agent.instances.lock().answer(&Call::List {}).unwrap();
        let names: Vec<String> = (0..BONDS).map(|bond| format!("bond{bond}")).collect();
        assert_eq!(listed, serde_json::json!(names), "in the order in which they were made");
    });
}

#[test]
fn an_adopted_bond_fails_over_while_others_are_still_to_be_adopted() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("start");
        world.start_again();
        let (mut root, mut changed) = (world.connect(), Vec::new());
        root.write_all(b"{\"id\":2,\"call\":\"add\",\"bond\":\"bond11\",\"options\":[]}\n")
            .unwrap();
        let adoptions = |turn: &Turn| {
            let adopts = |call: &&script::Call| matches!(call, script::Call::Adopt(_));
            turn.0.iter().filter(adopts).count()
        };
        let mut adopted = 0;
        while adopted < 3 {
            let turn = world.turn();
            assert!(adoptions(&turn) <= 1, "one a turn");
            adopted += adoptions(&turn);
        }
        let first = "bond0";
        let before = world.sends_through(first);
        ip("link set q0-0 down");
        while world.sends_through(first) == before {
            adopted += adoptions(&world.turn());
            assert!(adopted < BONDS, "it waits for the adoption of all");
        }
        let (mut reader, mut shown) = (world.connect(), Vec::new());
        reader.write_all(SHOW.as_bytes()).unwrap();
        // However slow the machine is, the answer is there before all are adopted.
        world.agent.share_of_readers = LIMIT;
        while receive(&mut reader, &mut shown) == 0 {
            adopted += adoptions(&world.turn());
        }
        let answer: Value = serde_json::from_slice(&shown).unwrap();
        let waiting = answer["ok"]["waiting"].as_array().unwrap();
        assert!(adopted < BONDS && waiting.len() >= BONDS - adopted, "{waiting:?}");
        assert!(waiting.iter().all(|bond| bond["starting"] == true), "{waiting:?}");
        assert_eq!(receive(&mut root, &mut changed), 0, "a change waits");
        while !world.agent.instances.lock().has_started() {
            let wait = world.agent.wait();
            assert!(wait == Some(Duration::ZERO) || adopted == BONDS, "it sleeps {wait:?}");
            adopted += adoptions(&world.turn());
        }
        assert_eq!(adopted, BONDS);
        while receive(&mut root, &mut changed) == 0 {
            world.turn();
        }
        let refused = String::from_utf8(changed).unwrap();
        assert!(refused.contains("there is a bond bond11 already"), "{refused}");
    });
}
