/**
 * The slice's account in a vserver (paper §4.1: the slice's name is the account): makes it, keeps its authorized keys,
 * and looks up accounts by name or number as the vserver's own files have them.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { IDS_PER_VSERVER } from './id-ranges.ts'
import type { OciUser } from './oci-config.ts'
import { readFileBeneath, writeFileBeneath } from './root-files.ts'

/** Where accounts for people begin on Debian. */
const FIRST_UID = 1000
const ACCOUNT_CHARS_MAX = 32

interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

export interface AccountInit {
  readonly slice: string
  readonly keys: readonly string[]
  /** Host id of the vserver's root. */
  readonly uidBase: number
}

/** The account's name: the slice's, made to what Unix takes for one. */
export function accountName(slice: string): string {
  const name = slice
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]/g, '_')
    .slice(0, ACCOUNT_CHARS_MAX)
  return /^[a-z_]/.test(name) ? name : `_${name}`.slice(0, ACCOUNT_CHARS_MAX)
}

/** Makes the account, the host name and the keys in a fresh root. What the image has by that name already stays. */
export function prepareRoot(rootFd: number, init: AccountInit): void {
  const owner = { uid: init.uidBase, gid: init.uidBase }
  const put = (path: string, text: string, mode: number): void =>
    writeFileBeneath(rootFd, path, Buffer.from(text), { ...owner, mode })
  put('/etc/hostname', `${init.slice}\n`, 0o644)
  put(
    '/etc/hosts',
    `127.0.0.1 localhost\n127.0.1.1 ${init.slice}\n::1 localhost ip6-localhost ip6-loopback\n`,
    0o644
  )
  const { passwd, group } = prepareAccounts(rootFd, init.uidBase)
  const name = accountName(init.slice)
  if (findAccount(passwd, name) === undefined) {
    const id = freeId(passwd, group)
    put('/etc/passwd', `${endLine(passwd)}${name}:x:${id}:${id}::/home/${name}:/bin/sh\n`, 0o644)
    put('/etc/group', `${endLine(group)}${name}:x:${id}:\n`, 0o644)
    const shadow = readFileBeneath(rootFd, '/etc/shadow', LIMITS.rootFileBytesMax)
    // No password fits `*`, but, unlike `!`, it leaves the account open to keys.
    if (shadow !== undefined) put('/etc/shadow', `${endLine(shadow)}${name}:*:19000:0:99999:7:::\n`, 0o600)
  }
  writeKeys(rootFd, init)
}

/**
 * Makes sure that accounts and groups stand in plain files, which whoever enters the root can read, and gives what these say: an
 * image may have anything by their names, also a pipe at which an OCI runtime would wait.
 */
export function prepareAccounts(
  rootFd: number,
  uidBase: number
): { readonly passwd: string; readonly group: string } {
  const kept = (path: string, otherwise: string): string => {
    const text = readFileBeneath(rootFd, path, LIMITS.rootFileBytesMax)
    if (text !== undefined) return text
    writeFileBeneath(rootFd, path, Buffer.from(otherwise), { uid: uidBase, gid: uidBase, mode: 0o644 })
    return otherwise
  }
  return {
    passwd: kept('/etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
    group: kept('/etc/group', 'root:x:0:\n')
  }
}

/** Replaces the account's `authorized_keys`. */
export function writeKeys(rootFd: number, init: AccountInit): void {
  const passwd = readFileBeneath(rootFd, '/etc/passwd', LIMITS.rootFileBytesMax) ?? ''
  const account = findAccount(passwd, accountName(init.slice))
  // The slice removed its account: there is nobody whose keys these could be.
  if (account === undefined) return
  const owner = { uid: init.uidBase + account.uid, gid: init.uidBase + account.gid }
  const text = init.keys.map((key) => `${key.trim()}\n`).join('')
  // Home and .ssh are made for the account alone; sshd insists on both.
  writeFileBeneath(rootFd, `${account.home}/.ssh/authorized_keys`, Buffer.from(text), {
    ...owner,
    mode: 0o600,
    directories: { ...owner, mode: 0o700 }
  })
}

/**
 * Whom a program runs as: an account's name, `uid` or `uid:gid`; root when not given.
 * Throws `NOT_FOUND` for an account that the vserver does not have.
 */
export function findUser(rootFd: number, user: string | undefined): OciUser {
  const passwd = readFileBeneath(rootFd, '/etc/passwd', LIMITS.rootFileBytesMax) ?? ''
  if (user === undefined) return { uid: 0, gid: 0, additionalGids: [], home: '/root' }
  const numbers = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(user)
  if (numbers !== null) {
    const uid = Number(numbers[1])
    const gid = numbers[2] === undefined ? undefined : Number(numbers[2])
    if (uid >= IDS_PER_VSERVER || (gid ?? 0) >= IDS_PER_VSERVER) throw unknownUser(user)
    const account = parseAccounts(passwd).find((candidate) => candidate.uid === uid)
    return { uid, gid: gid ?? account?.gid ?? uid, additionalGids: [], home: account?.home ?? '/' }
  }
  const account = findAccount(passwd, user)
  if (account === undefined) throw unknownUser(user)
  const group = readFileBeneath(rootFd, '/etc/group', LIMITS.rootFileBytesMax) ?? ''
  const additionalGids = group
    .split('\n')
    .map((line) => line.split(':'))
    .filter((fields) => fields[3]?.split(',').includes(account.name) === true)
    .map((fields) => Number(fields[2]))
    .filter((gid) => Number.isInteger(gid) && gid >= 0 && gid < IDS_PER_VSERVER)
    .slice(0, 32)
  return { uid: account.uid, gid: account.gid, additionalGids, home: account.home }
}

function parseAccounts(passwd: string): Account[] {
  const accounts: Account[] = []
  for (const line of passwd.split('\n')) {
    const [name, , uidText, gidText, , home] = line.split(':')
    const uid = Number(uidText)
    const gid = Number(gidText)
    if (name === undefined || name === '' || home === undefined || !home.startsWith('/')) continue
    if (!isId(uid) || !isId(gid)) continue
    accounts.push({ name, uid, gid, home })
  }
  return accounts
}

function findAccount(passwd: string, name: string): Account | undefined {
  return parseAccounts(passwd).find((account) => account.name === name)
}

/** The slice writes these files: a number beyond its range would be somebody else's on the host. */
function isId(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < IDS_PER_VSERVER
}

function freeId(passwd: string, group: string): number {
  const used = new Set(`${passwd}\n${group}`.split('\n').map((line) => Number(line.split(':')[2])))
  let id = FIRST_UID
  while (used.has(id)) id++
  return id
}

function endLine(text: string): string {
  return text === '' || text.endsWith('\n') ? text : `${text}\n`
}

function unknownUser(user: string): SlicenetError {
  return new SlicenetError('NOT_FOUND', `the virtual machine has no account ${JSON.stringify(user)}`)
}
