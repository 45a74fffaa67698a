from __future__ import annotations
import subprocess, sys, time, os
import pytest
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import enrolled, pod, server, service, shop, traffic

pytestmark = pytest.mark.kernel
FABRIC = "172.18.0.1"
MANIFESTS = shop(enrolled("registry", outbound="registry-only"), pod("local", "node1", ns="registry"), pod("scan", "node1"),pod("scan2", "node2"))
FLOOD = """
import socket,time,sys
end=time.time()+%d; n=0
while time.time()<end:
    s=socket.socket(); 
    try: s.connect(("172.18.0.1",8097))
    except OSError as e: pass
    s.close(); n+=1
print(n)
"""
def cpu(pid):
    f=open(f"/proc/{pid}/stat").read().rsplit(")",1)[1].split(); return (int(f[11])+int(f[12]))/100, int(f[21])*4096>>20

def probe(mesh, client, secs, node="node1"):
    out=[]; end=time.time()+secs; port=9000
    while time.time()<end:
        t=time.time(); 
        try: mesh.agent(node); a=time.time()-t
        except Exception as e: a=type(e).__name__
        t=time.time(); r=client.ask("web", 80, family=4); b=time.time()-t
        t=time.time(); r2=client.ask(FABRIC, port, timeout=5); c=time.time()-t; port+=1
        out.append((a if isinstance(a,str) else round(a,3), round(b,3), r.error, round(c,3), r2.error))
        time.sleep(.3)
    return out

def test_refused_flood(mesh: Mesh) -> None:
    client=mesh.puppet("shop/client"); local=mesh.puppet("registry/local")
    local.ask(FABRIC, 8097); 
    print("BEFORE", probe(mesh, client, 2))
    pid=mesh.agent_pid("node1"); c0=cpu(pid); log=mesh.layout.agent_log("node1"); s0=log.stat().st_size
    p=mesh.popen("registry/local",[sys.executable,"-c",FLOOD%8],stdout=subprocess.PIPE)
    print("DURING", probe(mesh, client, 7)); n=p.communicate()[0]
    print("FLOOD connects", n, "agent cpu", cpu(pid), c0, "log MB", (log.stat().st_size-s0)>>20)
    m=mesh.metrics("node1"); print({k:v for k,v in m.items() if "denied" in k or "untold" in k or "kernel" in k})
    print("AFTER", probe(mesh, client, 2))

def test_direct_flood(mesh: Mesh) -> None:
    near=mesh.puppet("shop/near"); near.ask("web",80,family=4)
    pid=mesh.agent_pid("node2"); c0=cpu(pid); log=mesh.layout.agent_log("node2"); s0=log.stat().st_size
    other=mesh.puppet("shop/scan2"); other.ask("web",80,family=4)
    vip=mesh.vip("shop/web")
    p=mesh.popen("shop/near",[sys.executable,"-c",FLOOD.replace('("172.18.0.1",8097)', f'("{vip}",80)')%8],stdout=subprocess.PIPE)
    print("DURING2", probe(mesh, other, 7, "node2")); n=p.communicate()[0]
    print("FLOOD2 connects", n, "agent cpu", cpu(pid), c0, "log MB", (log.stat().st_size-s0)>>20)
    m=mesh.metrics("node2"); print({k:v for k,v in m.items() if "direct" in k or "no_room" in k or "untold" in k or "kernel" in k})

SCAN = """
import socket,time,sys
t=time.time(); n=0
socks=[]
for ip in range(1,110):
    for port in range(1,250):
        s=socket.socket(); s.setblocking(False)
        try: s.connect((f"203.0.113.{ip}",port))
        except OSError as e: pass
        socks.append(s); n+=1
        if len(socks)>400: socks.pop(0).close()
        if n%50==0: time.sleep(.005)
print(n, time.time()-t)
"""
def test_scan(mesh: Mesh) -> None:
    client=mesh.puppet("shop/client")
    client.ask(FABRIC, 8097)
    pid=mesh.agent_pid("node1"); c0=cpu(pid)
    p=mesh.popen("shop/scan",[sys.executable,"-c",SCAN],stdout=subprocess.PIPE)
    out=[]
    t0=time.time()
    while len(out)<60 and time.time()-t0<14:
        t=time.time(); r=client.ask("web", 80, family=4, timeout=20); b=time.time()-t
        t=time.time(); mesh.agent("node1"); a=time.time()-t
        t=time.time(); r2=client.ask(FABRIC, 8097, timeout=20); c=time.time()-t
        out.append((round(time.time()-t0,2), "running" if p.poll() is None else "over", "web",round(b,3), r.error,"agent",round(a,3),"outside",round(c,3),r2.error)); time.sleep(.1)
    m=mesh.metrics("node1"); print("verdicts", m.get("ambient_kernel_verdicts"))
    if p.poll() is None: p.kill()
    print("SCAN", p.communicate()[0]); print(*out,sep="\n"); print(cpu(pid), c0)
    t=time.time()
    with mesh.having(traffic("shut", app="client", unknownDestinations="Refuse")): print("apply after scan", time.time()-t)
