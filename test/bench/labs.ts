/** The hosts of a benchmark: labs with networks, etcd and TLS, one for each number of copies. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { labCommand, labShape } from '../../cli/lab/lab-links.ts'
import { type PoolHost } from '../../cli/lab/pool.ts'
import { TestLab } from '../support/test-lab.ts'
import { type BenchHost } from './systems/system.ts'

export class Labs {
  readonly #labs = new Map<number, TestLab>()

  /** @param copies of each volume, and hosts, of which there are two at least */
  async get(copies: number): Promise<TestLab> {
    const known = this.#labs.get(copies)
    if (known !== undefined) return known
    const lab = await TestLab.start(Math.max(2, copies), { netns: true, coordinator: 'etcd', copies })
    this.#labs.set(copies, lab)
    return lab
  }

  /** A host's network and disk, for programs of others. */
  async host(lab: TestLab, host: PoolHost): Promise<BenchHost> {
    const directory = join(lab.directory, `peers-${host.name}`)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return { address: host.address, prefix: await labCommand(lab.labDirectory, host.name, []), directory }
  }

  /** Limits every link of every lab. @param bitsPerSecond null: no limit */
  async shape(bitsPerSecond: number | null): Promise<void> {
    for (const lab of this.#labs.values()) await labShape(lab.labDirectory, bitsPerSecond, null)
  }

  async dispose(): Promise<void> {
    for (const lab of this.#labs.values()) await lab.dispose()
    this.#labs.clear()
  }
}
