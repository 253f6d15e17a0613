import test from 'ava'
import { ociSeccomp, type ContainersSeccomp, type OciSeccompRule } from '../../src/enforce/seccomp.ts'

const profile: ContainersSeccomp = {
  syscalls: [
    {
      names: ['read', 'unshare', 'clone', 'clone3', 'socket', 'socketpair', 'io_uring_setup', 'keyctl'],
      action: 'SCMP_ACT_ALLOW'
    },
    { names: ['chroot'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_CHROOT'] } },
    { names: ['chroot'], action: 'SCMP_ACT_ERRNO', errnoRet: 1, excludes: { caps: ['CAP_SYS_CHROOT'] } },
    { names: ['settimeofday'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_TIME'] } },
    { names: ['arch_prctl'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['amd64', 'x32'] } },
    { names: ['cacheflush'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['arm', 'arm64'] } },
    { names: ['syslog'], action: 'SCMP_ACT_ALLOW' },
    { names: ['renameat'], action: 'SCMP_ACT_ALLOW', excludes: { arches: ['amd64'] } }
  ]
}

function rulesFor(
  name: string,
  over: { arch?: string; packetSockets?: boolean; rawSockets?: boolean } = {}
): OciSeccompRule[] {
  const seccomp = ociSeccomp({
    profile,
    capabilities: ['CAP_SYS_CHROOT'],
    arch: over.arch ?? 'x64',
    packetSockets: over.packetSockets ?? false,
    rawSockets: over.rawSockets ?? true
  })
  return seccomp.syscalls.filter(({ names }) => names.includes(name))
}

/** What the one rule that fits does with `socket(family, …)` or `socketpair(family, …)`. */
function socketAction(name: string, family: number, packetSockets: boolean): string {
  const fitting = rulesFor(name, { packetSockets }).filter(({ args }) => {
    const [arg] = args!
    return arg!.op === 'SCMP_CMP_EQ' ? family === arg!.value : family > arg!.value
  })
  return fitting.length === 1 ? fitting[0]!.action : `${fitting.length} rules`
}

test('rules follow the capabilities held', (t) => {
  t.deepEqual(
    rulesFor('chroot').map(({ action }) => action),
    ['SCMP_ACT_ALLOW']
  )
  t.deepEqual(rulesFor('settimeofday'), [])
})

test('rules follow the architecture', (t) => {
  t.is(rulesFor('arch_prctl').length, 1)
  t.is(rulesFor('arch_prctl', { arch: 'arm64' }).length, 0)
  t.is(rulesFor('cacheflush', { arch: 'arm64' }).length, 1)
  t.is(rulesFor('renameat').length, 0)
  t.is(rulesFor('renameat', { arch: 'arm64' }).length, 1)
  t.throws(() => rulesFor('read', { arch: 'mips' }), { instanceOf: TypeError })
})

const REFUSED = ['unshare', 'setns', 'mount', 'io_uring_setup', 'keyctl', 'bpf', 'userfaultfd', 'syslog']

for (const name of REFUSED) {
  test(`${name} is refused, also where the profile allows it`, (t) => {
    t.deepEqual(
      rulesFor(name).map(({ action }) => action),
      ['SCMP_ACT_ERRNO']
    )
  })
}

test('clone makes no namespaces, and clone3 sends programs back to it', (t) => {
  const [clone, ...more] = rulesFor('clone')
  t.deepEqual(more, [])
  t.deepEqual(clone?.args, [{ index: 0, value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }])
  t.deepEqual(
    rulesFor('clone3').map(({ action, errnoRet }) => [action, errnoRet]),
    [['SCMP_ACT_ERRNO', 38]]
  )
})

for (const name of ['socket', 'socketpair']) {
  test(`every family of ${name} has exactly one rule, and packet sockets need the right`, (t) => {
    const action = (isAllowed: boolean): string => (isAllowed ? 'SCMP_ACT_ALLOW' : 'SCMP_ACT_ERRNO')
    for (let family = 0; family < 60; family++) {
      const isOrdinary = [1, 2, 10, 16].includes(family)
      t.is(socketAction(name, family, false), action(isOrdinary), String(family))
      t.is(socketAction(name, family, true), action(isOrdinary || family === 17), String(family))
    }
  })
}

test('internet sockets that set their own headers can be refused apart, without a second rule for any', (t) => {
  const verdicts = (family: number, kind: number): string[] =>
    rulesFor('socket', { rawSockets: false, packetSockets: true }).flatMap(({ action, args = [] }) => {
      const [first, second] = args
      const fits = first!.op === 'SCMP_CMP_EQ' ? family === first!.value : family > first!.value
      const fitsKind = second === undefined || (kind & second.value) === second.valueTwo
      return fits && fitsKind ? [action] : []
    })
  const NONBLOCK = 0o4000
  for (const family of [2, 10]) {
    for (const kind of [1, 2, 5]) {
      t.deepEqual(verdicts(family, kind), ['SCMP_ACT_ALLOW'])
      t.deepEqual(verdicts(family, kind | NONBLOCK), ['SCMP_ACT_ALLOW'])
    }
    t.deepEqual(verdicts(family, 3 | NONBLOCK), ['SCMP_ACT_ERRNO'])
    // What is left, SOCK_PACKET among it, meets the default, which refuses.
    t.deepEqual(verdicts(family, 10), [])
  }
  t.deepEqual(verdicts(17, 3), ['SCMP_ACT_ALLOW'])
  t.deepEqual(verdicts(16, 3), ['SCMP_ACT_ALLOW'])
})
