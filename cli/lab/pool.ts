/** What xapi would do with the hosts of a lab: make an SR and volumes, attach and activate them, through the entry scripts. */
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { EntryScriptError, callEntryScript } from './entry-script.ts'
import { type NbdAddress } from './guest-disk.ts'
import { type LabReport } from './lab.ts'

export type PoolHost = LabReport['hosts'][number]

/** An SR as xapi knows it: what every host's PBD carries. */
export interface PoolSr {
  readonly sr: string
  readonly deviceConfig: Readonly<Record<string, string>>
}

export interface PoolVolume {
  readonly sr: string
  readonly key: string
  readonly uri: string
  /** Virtual size in bytes. */
  readonly size: number
}

const dictionary = z.record(z.string(), z.string())
const volumeAnswer = z.object({
  key: z.string(),
  virtual_size: z.number(),
  uri: z.array(z.string()).min(1),
})
const implementations = z.object({
  implementations: z.array(z.tuple([z.string(), z.record(z.string(), z.string())])),
})

/** dom0's own domain, as xapi names it when it uses a disk itself. */
const DOMAIN = 'u0_lab'

/**
 * Makes an SR on one host and attaches it on all but witnesses, of which xapi knows nothing.
 *
 * @param configuration device-config of `xe sr-create`
 */
export async function createSr(
  hosts: readonly PoolHost[],
  uuid: string,
  configuration: Readonly<Record<string, string>>
): Promise<PoolSr> {
  const pluggable = hosts.filter(({ witness }) => witness !== true)
  const [first] = pluggable
  const deviceConfig = dictionary.parse(
    await callEntryScript(first!.pluginRoot, 'volume', 'SR.create', {
      dbg: 'lab',
      uuid,
      configuration,
      name: 'lab',
      description: 'SR of a lab',
    })
  )
  const attached = await Promise.all(
    pluggable.map(host =>
      callEntryScript(host.pluginRoot, 'volume', 'SR.attach', { dbg: 'lab', configuration: deviceConfig })
    )
  )
  return { sr: z.string().parse(attached[0]), deviceConfig }
}

/** @param size in bytes */
export async function createVolume(
  host: PoolHost,
  sr: string,
  name: string,
  size: number
): Promise<PoolVolume> {
  const answer = volumeAnswer.parse(
    await callEntryScript(host.pluginRoot, 'volume', 'Volume.create', {
      dbg: 'lab',
      sr,
      name,
      description: '',
      size,
      sharable: false,
    })
  )
  return { sr, key: answer.key, uri: answer.uri[0]!, size: answer.virtual_size }
}

export async function destroyVolume(host: PoolHost, volume: PoolVolume): Promise<void> {
  await callEntryScript(host.pluginRoot, 'volume', 'Volume.destroy', {
    dbg: 'lab',
    sr: volume.sr,
    key: volume.key,
  })
}

/** SMAPIv3's word for a volume that is active elsewhere. */
const IN_USE = 'SR_BACKEND_FAILURE_24'
const RETRY_MS = 100

/**
 * Opens a volume whose primary has died. Nobody can tell a host that died just now from one that is about to say
 * something, so the first attempts may be refused; xapi, too, starts a VM elsewhere only some time later.
 *
 * @param patienceMs how long to repeat an attempt that was refused for that reason
 */
export async function takeOverVolume(
  host: PoolHost,
  volume: PoolVolume,
  patienceMs: number
): Promise<NbdAddress> {
  const end = performance.now() + patienceMs
  for (;;) {
    try {
      return await openVolume(host, volume)
    } catch (error) {
      const refused = error instanceof EntryScriptError && error.code === IN_USE
      if (!refused || performance.now() >= end) throw error
      await delay(RETRY_MS)
    }
  }
}

/** Attaches and activates, as before a VM starts. @returns where its disk is served */
export async function openVolume(host: PoolHost, volume: PoolVolume): Promise<NbdAddress> {
  const address = await attachVolume(host, volume)
  await activateVolume(host, volume)
  return address
}

export async function attachVolume(host: PoolHost, volume: PoolVolume): Promise<NbdAddress> {
  const answer = implementations.parse(await datapath(host, 'Datapath.attach', volume))
  const uri = answer.implementations.find(([kind]) => kind === 'Nbd')?.[1]['uri'] ?? ''
  const match = /^nbd:unix:([^:]+):exportname=([^:]*)$/.exec(uri)
  if (match === null) throw new Error(`Datapath.attach gave no NBD URI that a guest could use: ${uri}`)
  return { socket: match[1]!, exportName: match[2]! }
}

export async function activateVolume(host: PoolHost, volume: PoolVolume): Promise<void> {
  await datapath(host, 'Datapath.activate', volume)
}

export async function deactivateVolume(host: PoolHost, volume: PoolVolume): Promise<void> {
  await datapath(host, 'Datapath.deactivate', volume)
}

/** Deactivates and detaches, as after a VM has stopped. */
export async function closeVolume(host: PoolHost, volume: PoolVolume): Promise<void> {
  await deactivateVolume(host, volume)
  await datapath(host, 'Datapath.detach', volume)
}

const datapath = (host: PoolHost, name: string, { uri }: PoolVolume): Promise<unknown> =>
  callEntryScript(host.pluginRoot, 'datapath', name, { dbg: 'lab', uri, domain: DOMAIN })
