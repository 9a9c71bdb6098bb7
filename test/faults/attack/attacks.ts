/** What is tried at every port, and for what cause it must be said that it was refused. */
import { type Protocol, type Way } from './attack-wire.ts'
import { type Intruder } from './intruders.ts'

export interface Attack {
  readonly name: string
  readonly way: Way
  readonly who: Intruder
  /** Where it is tried. */
  readonly protocols: readonly Protocol[]
  /** Any of these. */
  readonly causes: readonly string[]
}

const ALL: readonly Protocol[] = ['rpc', 'nbd', 'etcd']
/** Those that ask the list of members. */
const LISTED: readonly Protocol[] = ['rpc', 'nbd']

export const ATTACKS: readonly Attack[] = [
  { name: 'silence', way: 'silent', who: 'nobody', protocols: ALL, causes: ['handshake-timeout'] },
  { name: 'garbage', way: 'garbage', who: 'nobody', protocols: ALL, causes: ['no-tls'] },
  { name: 'JSON-RPC in clear', way: 'json-rpc', who: 'nobody', protocols: ALL, causes: ['no-tls'] },
  { name: 'HTTP in clear', way: 'http', who: 'nobody', protocols: ALL, causes: ['no-tls'] },
  // It is told that it needs TLS, and goes on without.
  {
    name: 'NBD in clear',
    way: 'nbd',
    who: 'nobody',
    protocols: ALL,
    causes: ['no-tls', 'handshake-timeout'],
  },
  {
    name: 'STARTTLS, garbage',
    way: 'starttls-garbage',
    who: 'nobody',
    protocols: ['nbd'],
    causes: ['no-tls'],
  },
  {
    name: 'STARTTLS, then clear',
    way: 'starttls-injected',
    who: 'nobody',
    protocols: ['nbd'],
    causes: ['no-tls'],
  },
  { name: 'TLS, no certificate', way: 'tls', who: 'nobody', protocols: ALL, causes: ['no-certificate'] },
  {
    name: "another SR's",
    way: 'tls',
    who: 'stranger',
    protocols: ALL,
    causes: ['other-authority'],
  },
  {
    name: "removed host's",
    way: 'tls',
    who: 'removed',
    protocols: ALL,
    causes: ['revoked'],
  },
  { name: 'expired', way: 'tls', who: 'expired', protocols: ALL, causes: ['expired'] },
  {
    name: "another generation's",
    way: 'tls',
    who: 'outdated',
    protocols: ALL,
    causes: ['other-generation'],
  },
  // What the authority has signed is good for the gate before etcd: see docs/decisions/etcd-gate.md.
  {
    name: 'by a stolen authority',
    way: 'tls',
    who: 'forger',
    protocols: LISTED,
    causes: ['not-a-member'],
  },
  { name: 'TLS 1.2, member', way: 'tls-1.2', who: 'member', protocols: ALL, causes: ['no-tls'] },
  { name: 'TLS 1.2, no certificate', way: 'tls-1.2', who: 'nobody', protocols: ALL, causes: ['no-tls'] },
  { name: 'TLS 1.2, removed host', way: 'tls-1.2', who: 'removed', protocols: ALL, causes: ['no-tls'] },
]

/** Who may is answered: else an attack that fails would say nothing about those who refuse it. */
export const MEMBER_CALL = { way: 'tls', who: 'member' } as const
