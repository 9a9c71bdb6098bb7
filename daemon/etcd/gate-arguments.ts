/** How the gate of etcd is called (`gate-main.ts`), and found again. */
import { statSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { issuesOf } from '../../rpc/wire.ts'
import { etcdPath } from '../cluster/cluster-file.ts'
import { type MemberPlace } from './member-arguments.ts'

/** Among XOSAN's programs. */
export const GATE_PROGRAM = 'xosan-etcd-gate.js'

const port = z.coerce.number().int().min(1).max(65_535)
const gateSchema = z.strictObject({
  'gate-of': z.string(),
  'state-directory': z.string(),
  address: z.union([z.ipv4(), z.ipv6()]),
  'client-port': port,
  'peer-port': port,
  build: z.string(),
})

/** Arguments by which the gate before a host's member of etcd is known. @param data directory of the member's */
export const gateMarkOf = (data: string): string[] => ['--gate-of', data]

export const gateMark = ({ stateDirectory }: MemberPlace): string[] => gateMarkOf(etcdPath(stateDirectory))

/** Changes with the program and with Node: a gate that runs is replaced by one of the build that is installed. */
export function buildOf(program: string): string {
  const changedMs = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return `${Math.trunc(changedMs)}-${process.version}`
}

/** @param build as `buildOf` says */
export function gateArguments(place: MemberPlace, build: string): string[] {
  const { address, ports, stateDirectory } = place
  return [
    ...gateMark(place),
    ...['--state-directory', stateDirectory, '--address', address],
    ...['--client-port', String(ports.client), '--peer-port', String(ports.peer), '--build', build],
  ]
}

/** @throws XosanError INVALID_ARGUMENT */
export function parseGateArguments(
  words: readonly string[]
): Pick<MemberPlace, 'address' | 'ports' | 'stateDirectory'> {
  const names = Object.keys(gateSchema.shape)
  const { values } = parseArgs({
    args: [...words],
    options: Object.fromEntries(names.map(name => [name, { type: 'string' as const }])),
    strict: false,
  })
  const parsed = gateSchema.safeParse(values)
  if (!parsed.success) {
    throw new XosanError('INVALID_ARGUMENT', { what: 'The arguments', reason: issuesOf(parsed.error) })
  }
  const { 'state-directory': stateDirectory, address, 'client-port': client, 'peer-port': peer } = parsed.data
  return { stateDirectory, address, ports: { client, peer } }
}
