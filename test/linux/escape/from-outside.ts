/**
 * Attempts to lead the node astray while it works on a vserver from outside: links against upload, keys, programs and
 * accounts, archives against the image store, and programs against the runtime that starts them.
 */
import { chmod, lstat, mkdir, readFile, readdir, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run, runAnyway } from '../../../src/base/host-program.ts'
import { perlProgram } from './attempt.ts'
import { ACCOUNT, type Caretaker } from './caretakers.ts'

export interface Outside {
  /** A fresh directory of the host. */
  readonly scratch: string
  /** A file of the host that holds the token. */
  readonly secret: string
  readonly token: string
  /** The unpacked image of the vservers. */
  readonly imageRoot: string
}

export interface OutsideAttempt {
  /** Ends the sentence “a slice cannot …”. */
  readonly name: string
  /** Whether the attempt reached what is the host's. */
  readonly reaches: (caretaker: Caretaker, outside: Outside) => Promise<boolean>
}

const UP = '../'.repeat(30)

export const OUTSIDE_ATTEMPTS: readonly OutsideAttempt[] = [
  {
    name: 'lead an upload out by an absolute link',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(`mkdir -p ${scratch}; ln -sfn ${scratch} /absolute`)
      await caretaker.upload('/absolute/file', 'x')
      return exists(join(scratch, 'file'))
    }
  },
  {
    name: 'lead an upload out by a relative link',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(`mkdir -p ${scratch}; ln -sfn ${UP}${scratch} /relative`)
      await caretaker.upload('/relative/file', 'x')
      return exists(join(scratch, 'file'))
    }
  },
  {
    name: 'lead an upload out by a link through /proc',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(`mkdir -p ${scratch}; ln -sfn /proc/self/root${scratch} /magic`)
      await caretaker.upload('/magic/file', 'x')
      return exists(join(scratch, 'file'))
    }
  },
  {
    name: 'lead an upload out by its path',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.upload(`/${UP}${scratch}/file`, 'x')
      return exists(join(scratch, 'file'))
    }
  },
  {
    name: 'put a link under an upload that goes on',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(`mkdir -p ${scratch} /swap; ln -sfn ${scratch} /swap-link`)
      const swaps = caretaker.exec(['perl', '-e', SWAPPER])
      const complaint = await meanwhile(swaps, () => caretaker.upload('/swap/file', 'x'))
      if (complaint !== '') throw new Error(`nothing changed places: ${complaint}`)
      return exists(join(scratch, 'file'))
    }
  },
  {
    name: 'have an upload overwrite a file of the host',
    reaches: async (caretaker, { scratch }) => {
      const file = join(scratch, 'file')
      await writeFile(file, 'of the host')
      await caretaker.sh(`ln -sfn ${file} /final`)
      await caretaker.upload('/final', 'of the slice')
      return (await readFile(file, 'utf8')) !== 'of the host'
    }
  },
  {
    name: 'have its keys written into a directory of the host',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(`mkdir -p ${scratch} /home/${ACCOUNT}; rm -rf /home/${ACCOUNT}/.ssh`)
      await caretaker.sh(`ln -s ${scratch} /home/${ACCOUNT}/.ssh`)
      await caretaker.setKeys('ssh-ed25519 AAAA x')
      await caretaker.sh(`rm -f /home/${ACCOUNT}/.ssh`)
      return exists(join(scratch, 'authorized_keys'))
    }
  },
  {
    name: 'have its keys written over a file of the host',
    reaches: async (caretaker, { scratch }) => {
      const file = join(scratch, 'file')
      await writeFile(file, 'of the host')
      await caretaker.sh(
        `mkdir -p /home/${ACCOUNT}/.ssh; ln -sfn ${file} /home/${ACCOUNT}/.ssh/authorized_keys`
      )
      await caretaker.setKeys('ssh-ed25519 AAAA x')
      await caretaker.sh(`rm -rf /home/${ACCOUNT}/.ssh`)
      return (await readFile(file, 'utf8')) !== 'of the host'
    }
  },
  {
    name: 'have its keys written where its list of accounts says',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.sh(
        `cp /etc/passwd /passwd; sed -i 's|:/home/${ACCOUNT}:|:/${UP}${scratch}:|' /etc/passwd`
      )
      await caretaker.setKeys('ssh-ed25519 AAAA x')
      await caretaker.sh('mv /passwd /etc/passwd')
      return exists(join(scratch, '.ssh/authorized_keys'))
    }
  },
  {
    name: 'have a file of the host read as its list of accounts',
    reaches: async (caretaker, { scratch, secret, token, imageRoot }) => {
      const root = join(scratch, 'root')
      await run('cp', ['--archive', imageRoot, root])
      await run('rm', [join(root, 'etc/passwd')])
      await symlink(secret, join(root, 'etc/passwd'))
      return (await caretaker.accountsOf(root)).includes(token)
    }
  },
  {
    // CVE-2026-41579.
    name: 'have its devices made where its own link leads',
    reaches: async (caretaker, { scratch, imageRoot }) => {
      const devices = join(scratch, 'devices')
      await mkdir(devices)
      // No permission is in the way.
      await chmod(devices, 0o777)
      const root = join(scratch, 'root')
      await run('cp', ['--archive', imageRoot, root])
      await run('rm', ['--recursive', join(root, 'dev')])
      await symlink(devices, join(root, 'dev'))
      await caretaker.accountsOf(root)
      return (await readdir(devices)).length > 0
    }
  },
  {
    name: 'import an image with a path that leads up',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.import(await archiveOf(scratch, `${UP}${scratch.slice(1)}/out`))
      return exists(join(scratch, 'out'))
    }
  },
  {
    name: 'import an image with an absolute path',
    reaches: async (caretaker, { scratch }) => {
      await caretaker.import(await archiveOf(scratch, `${scratch}/out`))
      return exists(join(scratch, 'out'))
    }
  },
  {
    name: 'import an image with a file behind a link of its own',
    reaches: async (caretaker, { scratch }) => {
      const archive = await archiveOf(scratch, 'link/out')
      const first = join(scratch, 'first')
      await mkdir(first)
      await symlink(scratch, join(first, 'link'))
      const links = join(scratch, 'links.tar')
      await run('tar', ['--create', '--directory', first, '--file', links, 'link'])
      await run('tar', ['--concatenate', '--file', links, archive])
      await caretaker.import(links)
      return exists(join(scratch, 'out'))
    }
  },
  {
    name: 'import an image with a hard link to a file of the host',
    reaches: async (caretaker, { scratch, secret }) => {
      const files = join(scratch, 'files')
      await mkdir(files)
      await writeFile(join(files, 'a'), 'x')
      await run('ln', [join(files, 'a'), join(files, 'b')])
      const archive = join(scratch, 'archive.tar')
      await packRenamed(archive, files, `flags=h;s,^a$,${secret},`, ['a', 'b'])
      const root = await caretaker.import(archive)
      if (root === undefined) return false
      const { ino } = await stat(secret)
      return (await lstat(join(root, 'b')).catch(() => undefined))?.ino === ino
    }
  },
  {
    name: 'import an image with a device',
    reaches: async (caretaker, { scratch }) => {
      const files = join(scratch, 'files')
      await mkdir(files)
      await run('mknod', [join(files, 'null'), 'c', '1', '3'])
      const archive = join(scratch, 'archive.tar')
      await run('tar', ['--create', '--directory', files, '--file', archive, 'null'])
      const root = await caretaker.import(archive)
      return root !== undefined && (await lstat(join(root, 'null'))).isCharacterDevice()
    }
  },
  {
    name: 'lay out a set-user-id program for the accounts of the host',
    reaches: async (caretaker) => {
      await caretaker.sh('cp /usr/bin/id /become; chmod 4755 /become')
      const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
      const { stdout } = await runAnyway('setpriv', [...nobody, join(caretaker.root, 'become'), '-u'])
      return stdout === '0\n'
    }
  },
  {
    // CVE-2024-21626.
    name: 'start a program in a directory that the runtime has open',
    reaches: async (caretaker, { secret, token }) => {
      await caretaker.sh('for n in $(seq 3 40); do ln -sfn /proc/self/fd/$n /fd-$n; done')
      const read = ['cat', `${UP}${secret.slice(1)}`]
      for (let fd = 3; fd <= 40; fd++) {
        for (const cwd of [`/proc/self/fd/${fd}`, `/fd-${fd}`]) {
          if ((await caretaker.exec(read, cwd)).includes(token)) return true
        }
      }
      return false
    }
  },
  {
    name: 'start a program in such a directory by the runtime alone',
    reaches: async (caretaker, { secret, token }) => {
      const read = ['cat', `${UP}${secret.slice(1)}`]
      // An old runtime has the groups of the host open as one of these.
      for (let fd = 3; fd <= 12; fd++) {
        if ((await caretaker.execUnseen(read, `/proc/self/fd/${fd}`)).includes(token)) return true
      }
      return false
    }
  },
  {
    // CVE-2019-5736. The stand-in's runtime is a copy, and even that is only opened.
    name: 'open the runtime for writing while it starts a program',
    reaches: async (caretaker) => {
      const { dev, ino } = await stat(caretaker.runtime)
      const told = await whileItStartsPrograms(caretaker, OPENER, `${dev}:${ino}`)
      return told.includes('reached')
    }
  },
  {
    // CVE-2016-9962.
    name: 'reach a file through what the runtime has open while it starts a program',
    reaches: async (caretaker, { token }) => (await whileItStartsPrograms(caretaker, FINDER)).includes(token)
  }
]

/** Lets a directory and a link out change places for two seconds. */
const SWAPPER = perlProgram(String.raw`
  my ($end, $swaps) = (time + 2, 0);
  while (time < $end) {
    # Many changes at once may wait for the disk's quota to be counted.
    call('renameat2', -100, '/swap', -100, '/swap-link', 2) == 0 ? $swaps++ : select(undef, undef, undef, 0.01);
  }
  $swaps > 10 or refused("renameat2: $!");`)

/** Holds on to a running program that is the file of this device and number until it can be opened for writing. */
const OPENER = perlProgram(String.raw`
  my ($seconds, $identity) = @ARGV;
  my $end = time + $seconds;
  my %held;
  while (time < $end) {
    for my $process (grep m{/[0-9]+$}, entries('/proc')) {
      sysopen(my $file, "$process/exe", 0) or next;
      my ($dev, $ino) = stat $file;
      %held = (fileno $file, $file) if "$dev:$ino" eq $identity;
    }
    for my $fd (keys %held) {
      sysopen(my $file, "/proc/self/fd/$fd", 1) and print('reached'), exit;
    }
  }
  print 'nothing';`)

/** Looks for the secret in every directory that any process has open. */
const FINDER = perlProgram(String.raw`
  my $end = time + $ARGV[0];
  while (time < $end) {
    for my $path (map { entries("$_/fd") } entries('/proc')) {
      sysopen(my $file, "$path/secret", 0) or next;
      sysread $file, my $text, 100;
      print $text;
      exit;
    }
  }
  print 'nothing';`)

/** Starts a program of the slice over and over while another one watches; gives what that printed. */
async function whileItStartsPrograms(
  caretaker: Caretaker,
  watcher: string,
  ...args: readonly string[]
): Promise<string> {
  // What starts it becomes its interpreter. Perl takes a first line for its own only where its name is in it.
  await caretaker.sh(`printf '#!/proc/self/exe -I/perl\\nsleep 1;\\n' > /bait; chmod 755 /bait`)
  const watch = caretaker.exec(['perl', '-e', watcher, String(caretaker.watchSeconds), ...args])
  const told = await meanwhile(watch, () => caretaker.exec(['/bait']))
  if (!/^\w+$/.test(told.trim())) throw new Error(`nobody watched: ${told}`)
  return told
}

/** Does something over and over until `work` is done, and gives what came of that. */
async function meanwhile<T>(work: Promise<T>, repeat: () => Promise<unknown>): Promise<T> {
  const done = new AbortController()
  const result = work.finally(() => done.abort())
  while (!done.signal.aborted) await repeat()
  return result
}

async function archiveOf(scratch: string, name: string): Promise<string> {
  const files = join(scratch, 'files')
  await mkdir(files)
  await writeFile(join(files, 'file'), 'x')
  const archive = join(scratch, 'archive.tar')
  await packRenamed(archive, files, `s,^file$,${name},`, ['file'])
  return archive
}

/** An archive in which names are what tar's `rename` makes of them, wherever that leads. */
async function packRenamed(
  archive: string,
  directory: string,
  rename: string,
  names: readonly string[]
): Promise<void> {
  const how = ['--absolute-names', '--transform', rename, '--directory', directory]
  await run('tar', ['--create', ...how, '--file', archive, ...names])
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}
