import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { XosanError, reasonOf } from '../../core/errors.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../rpc/client.ts'
import { type HostPaths, type Lab, type LabHost, datapathSocket, programNames } from './layout.ts'

const clock = createNodeClock()

/** How long the programs of a host may take until they answer, in milliseconds: a small machine, all at once. */
const READY_TIMEOUT_MS = 60_000
/** One attempt to reach a program, in milliseconds. */
const ATTEMPT_MS = 2_000
const RETRY_MS = 50
/** So much of the end of a log is shown when its program does not come up. */
const LOG_TAIL_BYTES = 2_000

/**
 * Resolves when xosand and every datapath process of a host answer. Nothing else: with TLS a host is in no cluster
 * before there is an SR, and then has a member of etcd or not.
 *
 * @throws XosanError DAEMON_UNREACHABLE with the log's end
 */
export async function waitUntilReady(lab: Lab, host: LabHost, paths: HostPaths): Promise<void> {
  const end = performance.now() + READY_TIMEOUT_MS
  await Promise.all(
    programNames(lab, host).map(async name => {
      const [socket, method] =
        name === 'xosand'
          ? [paths.controlSocket, 'status']
          : [datapathSocket(paths, Number(name.slice('datapath-'.length))), 'datapath.status']
      for (;;) {
        const failure = await attempt(socket, method)
        if (failure === null) {
          return
        }
        if (performance.now() >= end) {
          const log = join(paths.log, `${name}.log`)
          throw new XosanError('DAEMON_UNREACHABLE', {
            path: socket,
            reason: `${failure}; ${log} ends with:\n${await tailOf(log)}`,
          })
        }
        await delay(RETRY_MS)
      }
    })
  )
}

/** @returns null when the program answered */
async function attempt(socket: string, method: string): Promise<string | null> {
  const client = new RpcClient({ address: socket, clock })
  try {
    await client.call(method, {}, z.unknown(), { deadlineMs: ATTEMPT_MS })
    return null
  } catch (error) {
    return reasonOf(error)
  } finally {
    client.close()
  }
}

async function tailOf(path: string): Promise<string> {
  try {
    const file = await open(path)
    try {
      const { size } = await file.stat()
      const buffer = Buffer.alloc(Math.min(size, LOG_TAIL_BYTES))
      await file.read(buffer, 0, buffer.length, size - buffer.length)
      return buffer.toString('utf8')
    } finally {
      await file.close()
    }
  } catch (error) {
    return `(${reasonOf(error)})`
  }
}
