/**
 * Unmodified Debian programs that use raw sockets, in a vserver with the right to them and in one without: each works
 * against hosts in network namespaces of the test's, or is refused with EPERM. Their packages come over HTTP.
 */
import test from 'ava'
import { SMALL, vserverSpec } from '../../enforce/enforcer-contract.ts'
import { icmp, tcp, udp } from '../net/lab.ts'
import { BUILD_DEADLINE_MS, DebianHost } from './debian-host.ts'

const MIB = 1024 ** 2
const PACKAGES = ['iputils-ping', 'traceroute', 'mtr-tiny', 'nmap', 'hping3', 'python3-scapy', 'tcpdump']
const RESOURCES = {
  ...SMALL,
  memoryBytes: 512 * MIB,
  diskBytes: 768 * MIB,
  pids: 128,
  egressBpsMax: 100_000_000
}
/** Of the package server, and one that nobody listens on. */
const OPEN = 8000
const CLOSED = 8999

// Their packages are fetched and installed twice.
const IS_NIGHTLY = process.env.SLICENET_NIGHTLY !== undefined
const nightly = IS_NIGHTLY ? test.serial : test.serial.skip
const host = new DebianHost({ letter: 'r', packages: PACKAGES })
const world = host.addressOf('world')

if (IS_NIGHTLY) {
  test.before(async (t) => {
    t.timeout(BUILD_DEADLINE_MS)
    await host.up()
    const spec = vserverSpec(host.image, {
      id: 'raw',
      slice: 'raw',
      resources: RESOURCES,
      rights: ['raw-socket']
    })
    await host.ask({ op: 'create', spec: { ...spec, ports: [tcp(9090), udp(9090), icmp(9090)] } })
    await host.ask({
      op: 'create',
      spec: vserverSpec(host.image, { id: 'plain', slice: 'plain', resources: RESOURCES })
    })
    for (const id of ['raw', 'plain']) {
      const done = await sh(
        id,
        `echo '${host.source}' > /etc/apt/sources.list; apt-get update && apt-get install -y --no-install-recommends ${PACKAGES.join(' ')}`
      )
      if (done.exitCode !== 0) throw new Error(done.output)
    }
  })

  test.after.always(() => host.down())
}

async function sh(id: string, script: string): Promise<{ output: string; exitCode: number }> {
  const env = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }
  return host.ask({ op: 'exec', id, program: { argv: ['sh', '-c', `exec 2>&1; ${script}`], env } })
}

const SCAPY = `
from scapy.all import *
conf.verb = 0
for port in (${OPEN}, ${CLOSED}):
    print(port, sr1(IP(dst="${world}") / TCP(sport=9090, dport=port, flags="S"), timeout=5).sprintf("%TCP.flags%"))
print("echo", sr1(IP(dst="${world}") / ICMP(id=9090), timeout=5).sprintf("%ICMP.type% %ICMP.id%"))
print("frame", srp1(Ether(dst=getmacbyip("${world}")) / IP(dst="${world}") / UDP(sport=9090, dport=${CLOSED}), timeout=5).sprintf("%ICMP.code%"))
`
/** What each program does with raw sockets, and what it then prints. */
const PROGRAMS: Readonly<Record<string, readonly [script: string, prints: RegExp]>> = {
  'ping of a given identifier': [`ping -n -c 2 -e 9090 ${world}`, /2 received/],
  'traceroute by UDP': [`traceroute -n -w 2 -q 1 ${world}`, new RegExp(`^ 3 +${world} `, 'm')],
  'traceroute by ICMP': [`traceroute -I -n -w 2 -q 1 ${world}`, new RegExp(`^ 3 +${world} `, 'm')],
  'traceroute by TCP': [`traceroute -T -p ${OPEN} -n -w 2 -q 1 ${world}`, new RegExp(`^ 3 +${world} `, 'm')],
  'mtr by ICMP': [`mtr -n -r -c 2 ${world}`, new RegExp(`3\\.\\|-- ${world} +0\\.0%`)],
  'mtr by UDP': [`mtr -u -n -r -c 2 ${world}`, new RegExp(`3\\.\\|-- ${world} +0\\.0%`)],
  'mtr by TCP': [`mtr -T -P ${OPEN} -n -r -c 2 ${world}`, new RegExp(`3\\.\\|-- ${world} +0\\.0%`)],
  'nmap -sS': [
    `nmap -n -Pn -sS -p ${OPEN},${CLOSED} ${world}`,
    new RegExp(`${OPEN}/tcp +open[^]*${CLOSED}/tcp +closed`)
  ],
  'nmap -sX from an owned port': [
    `nmap -n -Pn -sX -g 9090 -p ${OPEN},${CLOSED} ${world}`,
    new RegExp(`${OPEN}/tcp +open\\|filtered[^]*${CLOSED}/tcp +closed`)
  ],
  'hping3 -S': [`hping3 -n -c 1 -S -p ${OPEN} ${world}`, /flags=SA/],
  'hping3 -F from an owned port': [`hping3 -n -c 1 -F -s 9090 -k -p ${CLOSED} ${world}`, /flags=RA/],
  scapy: [
    `python3 -c '${SCAPY}'`,
    new RegExp(`${OPEN} SA\\n${CLOSED} RA\\necho echo-reply 0x2382\\nframe port-unreachable`)
  ],
  tcpdump: [
    `tcpdump -n -i eth0 -c 2 icmp & sleep 1; ping -n -c 2 ${world} > /dev/null; wait`,
    /ICMP echo request[^]*ICMP echo reply/
  ]
}

for (const [name, [script, prints]] of Object.entries(PROGRAMS)) {
  nightly(`${name} works in a vserver with the right to raw sockets`, async (t) => {
    t.timeout(120_000)
    t.regex((await sh('raw', script)).output, prints)
  })
}

const REFUSED: Readonly<Record<string, string>> = {
  'traceroute by TCP': `traceroute -T -p ${OPEN} -n ${world}`,
  'nmap -sS': `nmap -n -Pn -sS -p ${OPEN} ${world}`,
  'hping3 -S': `hping3 -n -c 1 -S -p ${OPEN} ${world}`,
  scapy: `python3 -c '${SCAPY}'`,
  tcpdump: 'tcpdump -n -i eth0 -c 1'
}
for (const [name, script] of Object.entries(REFUSED)) {
  nightly(`${name} is refused in a vserver without the right`, async (t) => {
    t.timeout(120_000)
    const { output, exitCode } = await sh('plain', script)
    t.not(exitCode, 0)
    t.regex(output, /not permitted|EPERM/i)
  })
}

nightly('without the right every kind of raw socket is EPERM, with it none is', async (t) => {
  const kinds = `
import socket, errno
for family, kind, protocol in ((2, 3, 6), (2, 3, 255), (2, 3, 1), (17, 3, 768), (17, 2, 768)):
    try:
        socket.socket(family, kind, protocol).close()
        print("made")
    except OSError as e:
        print(errno.errorcode[e.errno])
`
  t.is((await sh('plain', `python3 -c '${kinds}'`)).output, 'EPERM\n'.repeat(5))
  t.is((await sh('raw', `python3 -c '${kinds}'`)).output, 'made\n'.repeat(5))
})
