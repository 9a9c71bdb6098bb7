import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { handleOf, signal, waitForCondition } from '../../../daemon/supervision/process-handle.ts'
import { Supervised } from '../../../daemon/supervision/supervised.ts'

const run = promisify(execFile)

describe('a program that is looked after', () => {
  let directory: string
  beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), 'xosan-supervised-'))))
  afterEach(async () => rm(directory, { recursive: true }))

  it('is started when it is prepared and not before, and what it makes is nobody else’s', async () => {
    const path = join(directory, 'made')
    let tries = 0
    const told: string[] = []
    let heard: () => void = () => undefined
    const program: Supervised = new Supervised(
      {
        name: 'a program',
        program: 'sh',
        arguments: ['-c', `echo > ${path}; stat -c %a ${path}; exec sleep 60`],
        logFile: join(directory, 'log'),
        prepare: async () => {
          tries += 1
          assert.equal(program.run, null)
          return tries < 3 ? Promise.reject(new Error('not yet')) : Promise.resolve()
        },
      },
      { firstMs: 1, longestMs: 2 },
      what => {
        told.push(what)
        heard()
      }
    )
    program.start(null)
    while (program.run === null) await new Promise<void>(resolve => (heard = resolve))
    assert.deepEqual([tries, told.length], [3, 3])
    assert.match(told[0]!, /could not be started: not yet; it is started again in 1 ms/)
    const log = async (): Promise<string> => readFile(join(directory, 'log'), 'utf8')
    while ((await log()) === '') await new Promise(resolve => setImmediate(resolve))
    assert.equal(await log(), '600\n')
    const handle = handleOf(program.run.pid)!
    program.release()
    signal(handle, 'SIGKILL')
    await waitForCondition([handle], 'down', 10_000)
  })

  it('is not taken for dead by who has no descriptor left to look', async () => {
    const source = new URL('../../../daemon/supervision/process-handle.ts', import.meta.url).href
    const script = `
      const { conditionOf, handleOf, signal } = await import(${JSON.stringify(source)})
      const { openSync, closeSync } = await import('node:fs')
      const living = handleOf(process.ppid)
      const open = []
      try { for (;;) open.push(openSync('/dev/null')) } catch {}
      const found = [conditionOf(living)]
      try { signal(living, 0) } catch (error) { found.push(error.code) }
      for (const one of open) closeSync(one)
      process.stdout.write(found.join())`
    const words = ['--import', 'tsx', '--input-type=module', '-e', script]
    const { stdout } = await run('prlimit', ['--nofile=512', process.execPath, ...words])
    assert.equal(stdout, 'up,EMFILE')
  })
})
