//! Bytes arrive whole and in order, in both directions, and an end of one direction is no end of the other.

#![allow(clippy::expect_used)]

mod common;

use common::*;
use srt_tests::processes::Process;
use srt_tests::{DEADLINE, at_once, both, wait_until};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

const BIG: usize = 100_000_000;

both! {
    fn a_hundred_megabytes_pass_each_way_and_each_end_is_passed_on(who) {
        for way in WAYS {
            let big = if matches!(way, Way::TcpToUnix | Way::UnixToTcp) { BIG } else { BIG / 10 };
            let setup = Setup::new(who, way);
            let before = setup.relay.descriptors();
            // Both at once, then one after the other's end.
            let (mut client, mut server) = setup.pair();
            let (mut client2, mut server2) = (client.another(), server.another());
            let sizes = [
                thread::spawn(move || send_noise(&mut *client, 1, big)),
                thread::spawn(move || receive_noise(&mut *server, 1)),
                thread::spawn(move || send_noise(&mut *server2, 2, big)),
                thread::spawn(move || receive_noise(&mut *client2, 2)),
            ]
            .map(|thread| thread.join().expect("thread").expect("io"));
            assert_eq!(sizes, [big; 4], "{way:?}");

            let (mut client, mut server) = setup.pair();
            let mut client2 = client.another();
            let sender = thread::spawn(move || send_noise(&mut *client, 3, big));
            let got = receive_noise(&mut *server, 3).expect("receive");
            assert_eq!(sender.join().expect("thread").expect("send"), got, "{way:?}");
            let answer = thread::spawn(move || send_noise(&mut *server, 4, big));
            let got = receive_noise(&mut *client2, 4).expect("receive");
            assert_eq!(answer.join().expect("thread").expect("send"), got, "{way:?}");
            drop(client2);
            setup.relay.settles_at(before);
        }
    }

    fn a_reply_may_come_long_after_the_requests_end(who) {
        // socat cuts it after half a second.
        at_once(WAYS.len(), WAYS, |way| {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            client.write_all(b"request").expect("write");
            client.end();
            assert_eq!(read_all(&mut server), b"request");
            thread::sleep(Duration::from_millis(1500));
            server.write_all(b"reply").expect("write");
            server.end();
            assert_eq!(read_all(&mut client), b"reply", "{way:?}");
        });
    }

    fn a_server_that_ends_first_goes_on_reading(who) {
        at_once(WAYS.len(), WAYS, |way| {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            server.write_all(b"greeting").expect("write");
            server.end();
            assert_eq!(read_all(&mut client), b"greeting");
            thread::sleep(Duration::from_millis(100));
            client.write_all(b"late").expect("write");
            client.end();
            assert_eq!(read_all(&mut server), b"late", "{way:?}");
        });
    }

    fn an_end_waits_for_the_bytes_before_it_when_the_reader_is_slow(who) {
        at_once(WAYS.len(), WAYS, |way| {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            let mut sender = client.another();
            let sender = thread::spawn(move || send_noise(&mut *sender, 5, 5_000_000));
            thread::sleep(Duration::from_millis(300));
            // The other direction works in the meantime.
            server.write_all(b"x").expect("write");
            client.read_exact(&mut [0]).expect("read");
            let got = receive_noise(&mut *server, 5).expect("receive");
            assert_eq!(sender.join().expect("thread").expect("send"), got, "{way:?}");
            server.end();
            assert_eq!(read_all(&mut client), b"", "{way:?}");
        });
    }

    fn what_follows_urgent_data_is_not_lost(who) {
        // The urgent byte itself is none of the stream (tcp(7)), and a Unix socket has no place for it.
        for (way, count) in [(Way::TcpToUnix, 3), (Way::TcpToUnix, 100_000), (Way::TcpToUnix, 3_000_000), (Way::TcpToTcp, 3_000_000)] {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            let mut sender = client.another();
            let sender = thread::spawn(move || {
                sender.write_all(&vec![b'a'; count]).expect("write");
                // SAFETY: one byte that lives through the call.
                assert_eq!(unsafe { libc::send(sender.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
                sender.write_all(b"and more").expect("write");
            });
            // All of it is there before the relay can read more, and the client waits for its answer.
            thread::sleep(Duration::from_millis(200));
            let mut all = vec![0; count + 8];
            server.read_exact(&mut all).expect("read");
            assert_eq!(&all[count..], b"and more", "{count}");
            sender.join().expect("thread");
            server.write_all(b"x").expect("write");
            client.read_exact(&mut [0]).expect("read");
            client.end();
            assert_eq!(read_all(&mut server), b"", "{count}");
        }
    }

    fn what_follows_urgent_data_is_not_lost_where_the_end_has_come_too(who) {
        for way in [Way::TcpToUnix, Way::TcpToTcp] {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            let mut sender = client.another();
            let sender = thread::spawn(move || sender.write_all(&vec![b'a'; 4_000_000]).expect("write"));
            // The window of the relay's socket opens for more than a read of it that makes the next one a splice(2).
            server.read_exact(&mut vec![0; 4_000_000]).expect("read");
            sender.join().expect("thread");
            setup.relay.signal(libc::SIGSTOP);
            let stopped = || Process::find(setup.relay.pid()).is_some_and(|relay| relay.state == 'T');
            wait_until("it to stop", stopped);
            client.write_all(&[b'a'; 70_000]).expect("write");
            // SAFETY: one byte that lives through the call.
            assert_eq!(unsafe { libc::send(client.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
            client.write_all(b"and more").expect("write");
            client.end();
            // tcp(7), SIOCOUTQ: what the other side has yet to acknowledge, the end included.
            wait_until("all to arrive", || {
                let mut count: libc::c_int = -1;
                // SAFETY: TIOCOUTQ, the same number, fills an integer.
                assert_eq!(unsafe { libc::ioctl(client.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) }, 0);
                count == 0
            });
            setup.relay.signal(libc::SIGCONT);
            let all = read_all(&mut server);
            assert_eq!((all.len(), &all[70_000.min(all.len())..]), (70_008, &b"and more"[..]), "{way:?}");
        }
    }

    fn an_answer_is_delivered_although_its_server_refuses_the_rest_of_the_request(who) {
        for way in WAYS {
            let setup = Setup::new(who, way);
            let before = setup.relay.descriptors();
            let (mut client, mut server) = setup.pair();
            let mut sender = client.another();
            let sender = thread::spawn(move || send_noise(&mut *sender, 6, BIG).is_err());
            server.read_exact(&mut [0; 1000]).expect("read");
            server.write_all(b"413 too large").expect("write");
            if matches!(way, Way::UnixToTcp | Way::TcpToTcp) {
                // TCP resets what is closed with unread bytes, and a reset may overtake the answer: a server
                // that wants it read lingers.
                server.end();
                let mut answer = [0; 13];
                client.read_exact(&mut answer).expect("the answer");
                assert_eq!(&answer, b"413 too large");
                drop(server);
            } else {
                drop(server);
                let mut answer = [0; 13];
                client.read_exact(&mut answer).expect("the answer");
                assert_eq!(&answer, b"413 too large");
            }
            assert!(sender.join().expect("thread"), "{way:?}: the rest of the request is refused");
            drop(client);
            setup.relay.settles_at(before);
        }
    }

    fn a_stalled_reader_among_a_hundred_busy_ones_slows_nobody(who) {
        for way in [Way::TcpToUnix, Way::UnixToTcp] {
            let setup = Setup::new(who, way);
            let stalled: Vec<_> = (0..2).map(|_| setup.pair()).collect();
            for (client, server) in &stalled {
                for stream in [client, server] {
                    let mut writer = stream.another();
                    // Ends with an error when the test is over and the stream is shut down.
                    thread::spawn(move || send_noise(&mut *writer, 7, BIG));
                }
            }
            thread::sleep(Duration::from_millis(200));
            let start = Instant::now();
            let busy: Vec<_> = (0..100)
                .map(|_| {
                    let (mut client, mut server) = setup.pair();
                    thread::spawn(move || {
                        let mut message = [9; 10_000];
                        for _ in 0..50 {
                            client.write_all(&message).expect("write");
                            server.read_exact(&mut message).expect("read");
                            server.write_all(&message).expect("write");
                            client.read_exact(&mut message).expect("read");
                        }
                    })
                })
                .collect();
            for one in busy {
                one.join().expect("a busy connection");
            }
            assert!(start.elapsed() < DEADLINE, "{way:?}");
        }
    }

    fn a_stalled_reader_spins_no_cpu(who) {
        at_once(WAYS.len(), WAYS, |way| {
            let setup = Setup::new(who, way);
            let (client, server) = setup.pair();
            for stream in [&client, &server] {
                let mut writer = stream.another();
                thread::spawn(move || send_noise(&mut *writer, 8, BIG));
            }
            thread::sleep(Duration::from_millis(500));
            setup.relay.is_idle_for(Duration::from_secs(1), 1);
            drop((client, server));
        });
    }

    fn one_byte_at_a_time_arrives(who) {
        for way in WAYS {
            let setup = Setup::new(who, way);
            let (mut client, mut server) = setup.pair();
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                server.read_to_end(&mut all).expect("read");
                all
            });
            let sent: Vec<u8> = (0..=255).cycle().take(5000).collect();
            for byte in &sent {
                client.write_all(&[*byte]).expect("write");
            }
            client.end();
            assert_eq!(reader.join().expect("thread"), sent, "{way:?}");
        }
    }
}
