import test from 'ava'
import { readEnvironment, requireSocketPath } from '../../src/daemon/environment.ts'

const XDG = {
  XDG_CONFIG_HOME: '/c',
  XDG_STATE_HOME: '/s',
  XDG_RUNTIME_DIR: '/run/user/1'
}

test('SLICENET_HOME holds everything', (t) => {
  const environment = readEnvironment({ variables: { ...XDG, SLICENET_HOME: '/srv/a' }, uid: 0 })
  t.like(environment, {
    configDirectory: '/srv/a',
    stateDirectory: '/srv/a',
    imagesDirectory: '/srv/a/images',
    keyFile: '/srv/a/identity.key',
    configFile: '/srv/a/slicenet.yaml',
    socketPath: '/srv/a/control.sock'
  })
})

test('without it the XDG directories do, and root shares its images with the machine', (t) => {
  t.like(readEnvironment({ variables: XDG, uid: 1000, homeDirectory: '/home/a' }), {
    configDirectory: '/c/slicenet',
    stateDirectory: '/s/slicenet',
    imagesDirectory: '/s/slicenet/images',
    socketPath: '/run/user/1/slicenet/control.sock'
  })
  t.like(readEnvironment({ variables: {}, uid: 0, homeDirectory: '/root' }), {
    configDirectory: '/root/.config/slicenet',
    imagesDirectory: '/var/lib/slicenet/images',
    socketPath: '/root/.local/state/slicenet/control.sock'
  })
})

test('empty variables count as unset, and relative XDG paths are ignored', (t) => {
  const variables = { SLICENET_HOME: '', NO_COLOR: '', XDG_STATE_HOME: 'relative' }
  const environment = readEnvironment({ variables, uid: 1, homeDirectory: '/home/a' })
  t.is(environment.stateDirectory, '/home/a/.local/state/slicenet')
  t.true(environment.color)
})

test('colour, stacks, log level and images follow their variables', (t) => {
  const variables = { NO_COLOR: '1', SLICENET_DEBUG: '1', SLICENET_LOG: 'debug', SLICENET_IMAGES: '/i' }
  t.like(readEnvironment({ variables }), {
    color: false,
    debug: true,
    logLevel: 'debug',
    imagesDirectory: '/i'
  })
})

test('an unknown log level is refused', (t) => {
  t.throws(() => readEnvironment({ variables: { SLICENET_LOG: 'loud' } }), { code: 'CONFIG_INVALID' })
})

test('a socket path that the kernel would cut off is refused, counted in bytes', (t) => {
  t.is(requireSocketPath(`/${'a'.repeat(106)}`).length, 107)
  t.throws(() => requireSocketPath(`/${'a'.repeat(107)}`), { code: 'CONFIG_INVALID', message: /108 bytes/ })
  t.throws(() => requireSocketPath(`/${'ä'.repeat(54)}`), { code: 'CONFIG_INVALID' })
})
