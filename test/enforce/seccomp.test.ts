import test from 'ava'
import { ociSeccomp, type ContainersSeccomp, type OciSeccompRule } from '../../src/enforce/seccomp.ts'

const profile: ContainersSeccomp = {
  syscalls: [
    {
      names: ['read', 'unshare', 'clone', 'clone3', 'socket', 'io_uring_setup', 'keyctl'],
      action: 'SCMP_ACT_ALLOW'
    },
    { names: ['chroot'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_CHROOT'] } },
    { names: ['chroot'], action: 'SCMP_ACT_ERRNO', errnoRet: 1, excludes: { caps: ['CAP_SYS_CHROOT'] } },
    { names: ['settimeofday'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_TIME'] } },
    { names: ['arch_prctl'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['amd64', 'x32'] } },
    { names: ['cacheflush'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['arm', 'arm64'] } },
    { names: ['syslog'], action: 'SCMP_ACT_ALLOW', excludes: { arches: ['amd64'] } }
  ]
}

function rulesFor(name: string, over: { arch?: string; packetSockets?: boolean } = {}): OciSeccompRule[] {
  const seccomp = ociSeccomp({
    profile,
    capabilities: ['CAP_SYS_CHROOT'],
    arch: over.arch ?? 'x64',
    packetSockets: over.packetSockets ?? false
  })
  return seccomp.syscalls.filter(({ names }) => names.includes(name))
}

/** What the first rule that fits does with `socket(family, …)`. */
function socketAction(family: number, packetSockets: boolean): string {
  const fitting = rulesFor('socket', { packetSockets }).filter(({ args }) => {
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
  t.is(rulesFor('syslog').length, 0)
  t.is(rulesFor('syslog', { arch: 'arm64' }).length, 1)
  t.throws(() => rulesFor('read', { arch: 'mips' }), { instanceOf: TypeError })
})

for (const name of ['unshare', 'setns', 'mount', 'io_uring_setup', 'keyctl', 'bpf', 'userfaultfd']) {
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

test('every socket family has exactly one rule, and packet sockets need the right', (t) => {
  for (let family = 0; family < 60; family++) {
    const ordinary = [1, 2, 10, 16].includes(family)
    t.is(socketAction(family, false), ordinary ? 'SCMP_ACT_ALLOW' : 'SCMP_ACT_ERRNO', String(family))
    t.is(socketAction(family, true), ordinary || family === 17 ? 'SCMP_ACT_ALLOW' : 'SCMP_ACT_ERRNO')
  }
})
