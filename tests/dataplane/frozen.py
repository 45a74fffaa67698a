"""What engine/abi.h was in version 4. Engines of that version may still carry connections: nothing here ever changes.

Fields are "name:offset+size", enumerators "name=number". A later version adds lines and words, and alters none.
"""

from __future__ import annotations

FIELDS = {
    "amb_head": "type:0+2 fds:2+2 size:4+2 body:6+2",
    "amb_addr": "ip:0+16 port:16+4 zero:20+4",
    "amb_ref": "id:0+8",
    "amb_pod_ref": "pod:0+8 have:8+4 want:12+4",
    "amb_hello": (
        "abi:0+4 worker:4+4 workers:8+4 pid:12+4 start_at:16+8 leaving:24+4 build_len:28+4 oldest:32+4 zero:36+4"
    ),
    "amb_accepted": "question:0+8 listener:8+8 from:16+24 to:40+24",
    "amb_tunnel_q": (
        "question:0+8 listener:8+8 target:16+8 handshake_ns:24+8 from:32+24 to:56+24 cert_len:80+4 zero:84+4"
    ),
    "amb_request": "question:0+8 listener:8+8 peer:16+8 from:24+24 to:48+24 headers_len:72+4 zero:76+4",
    "amb_dial_failed": "answer:0+8 target:8+8 dial:16+24 reason:40+4 error:44+4",
    "amb_conn": (
        "id:0+8 listener:8+8 answer:16+8 start_at:24+8 duration_ns:32+8 setup_ns:40+8 sent:48+8 received:56+8 "
        "from:64+24 to:88+24 dialled:112+24 target:136+8 trace:144+16 reason:160+4 error:164+4 text_len:168+4 "
        "zero:172+4"
    ),
    "amb_answer_row": (
        "answer:0+8 opened:8+8 closed:16+8 sent:24+8 received:32+8 flags:40+4 verdict:44+4 label_len:48+4 zero:52+4"
    ),
    "amb_settings": (
        "connect_ms:0+4 handshake_ms:4+4 request_ms:8+4 answer_ms:12+4 keepalive_s:16+4 tunnel_idle_s:20+4 "
        "max_streams:24+4 elephant_bytes:28+4 retries:32+4 flags:36+4 under_way:40+4"
    ),
    "amb_pod": "pod:0+8 stash_family:8+4 stash_want:12+4",
    "amb_context": "context:0+8 expires_at:8+8 cert_len:16+4 key_len:20+4 roots_len:24+4 zero:28+4",
    "amb_contexts": "count:0+4 zero:4+4",
    "amb_listen": "listener:0+8 pod:8+8 context:16+8 role:24+4 zero:28+4",
    "amb_choice": "dial:0+24 authority:24+24 target:48+8 context:56+8 weight:64+4 flags:68+4",
    "amb_answer": (
        "question:0+8 answer:8+8 pod:16+8 verdict:24+4 flags:28+4 status:32+4 uses:36+4 choices:40+4 "
        "label_len:44+4 baggage_len:48+4 host_len:52+4"
    ),
    "amb_cut": "answer:0+8 reason:8+4 zero:12+4",
    "amb_drain": "timeout_s:0+4 zero:4+4",
    "amb_speaks": "abi:0+4 oldest:4+4",
    "amb_inventory": "id:0+8 answers:8+4 conns:12+4 listeners:16+4 zero:20+4",
    "amb_client_key": "netns_cookie:0+8 ip:8+16 port:24+4 zero:28+4",
    "amb_client_value": "ip:0+16 port:16+4 writer:20+4",
}
NUMBERS = {
    "amb_type": (
        "HELLO=1 ACCEPTED=2 TUNNEL=3 REQUEST=4 DIAL_FAILED=5 STASH_LOW=6 ENDED=7 IDLE=8 ROW_ANSWER=9 "
        "ROW_CONN=10 ROW_LISTENER=11 ROW_END=12 SETTINGS=64 CLIENTS_MAP=65 POD=66 STASH=67 CONTEXT=68 "
        "LISTEN=69 UNLISTEN=70 LEAVE=71 ANSWER=72 FORGET=73 CUT=74 INVENTORY=75 SEEN=76 CONTEXTS=77 DRAIN=78 "
        "SPEAKS=79"
    ),
    "amb_role": "OUTBOUND=1 INBOUND_TUNNEL=2 INBOUND_PLAIN=3",
    "amb_verdict": "CARRY=1 ACCEPT=2 REFUSE=3",
    "amb_answer_flag": "REMEMBER=1 SHOW_CLIENT=2",
    "amb_choice_flag": "VIA_TUNNEL=1",
    "amb_settings_flag": "NO_EARLY_DATA=1 ACKNOWLEDGES=2",
    "amb_reason": (
        "OPEN=0 CLOSED=1 RESET_CLIENT=2 RESET_SERVER=3 CUT=4 REFUSED=5 NO_ANSWER=6 NO_SOCKET=7 NO_CONTEXT=8 "
        "DIAL=9 HANDSHAKE=10 PEER_REFUSED=11 BAD_REQUEST=12 PROTOCOL=13 TIMEOUT=14 TUNNEL_LOST=15 EXPIRED=16 "
        "RESOURCES=17 STRANGER=18"
    ),
}
