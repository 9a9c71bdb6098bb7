/**
 * The program in the guest: opens its lanes, tells how they stand, and writes what it is told to, one line for each
 * item that was acknowledged.
 *
 *     node main.js PORT LANE=MODULE ...
 */
import { createReadStream, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { reasonOf } from '../../../../core/errors.ts'
import { Lines, type Notice, orderSchema } from '../guest-link.ts'
import { type OpenWorkload, type Workload } from './workload.ts'

const LANES_DIRECTORY = '/lanes'

async function main([port, ...lanes]: readonly string[]): Promise<void> {
  const link = openSync(port!, 'r+')
  // At once, not through a stream: nothing stands between an acknowledgement and its line.
  const tell = (notice: Notice): void => {
    const line = Buffer.from(`${JSON.stringify(notice)}\n`)
    for (let done = 0; done < line.length;) done += writeSync(link, line, done)
  }
  tell({ kind: 'started' })
  const workloads = new Map<string, Workload>()

  const open = async (lane: string, path: string): Promise<void> => {
    const { openWorkload } = (await import(path)) as { readonly openWorkload: OpenWorkload }
    const workload = await openWorkload(join(LANES_DIRECTORY, lane))
    workloads.set(lane, workload)
    tell({ kind: 'open', lane, standing: { ...(await workload.standing()) } })
  }

  const failed = (lane: string, at: 'opening' | 'writing', error: unknown): void => {
    workloads.delete(lane)
    tell({ kind: 'failed', lane, at, reason: reasonOf(error) })
  }

  for (const each of lanes) {
    const [lane, path] = each.split('=') as [string, string]
    void open(lane, path).catch((error: unknown) => failed(lane, 'opening', error))
  }
  const lines = new Lines()
  for await (const text of createReadStream('', { fd: link, encoding: 'utf8' })) {
    for (const line of lines.take(text as string)) {
      const { lane, chain, item } = orderSchema.parse(JSON.parse(line))
      workloads
        .get(lane)
        ?.write(chain, item)
        .then(() => tell({ kind: 'done', lane, chain, item }))
        .catch((error: unknown) => failed(lane, 'writing', error))
    }
  }
}

await main(process.argv.slice(2))
