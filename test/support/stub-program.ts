/**
 * Stands in for xosand and for a datapath process where only their life and death matter: listens where the real
 * one would, answers every call with null, ends at SIGTERM. As xosand it starts the member of etcd of its host, which
 * outlives it. Who ends in order is noted in the state directory, in that order.
 */
import { spawn } from 'node:child_process'
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { handleOf } from '../../daemon/supervision/process-handle.ts'

interface StubConfig {
  readonly runDirectory: string
  readonly stateDirectory: string
  readonly coordinator: { readonly kind: string; readonly program?: string }
}

const argument = (name: string): string | undefined => process.argv[process.argv.indexOf(name) + 1]

const config = JSON.parse(readFileSync(argument('--config') ?? '', 'utf8')) as StubConfig
const isDatapath = process.argv.includes('--index')
const name = isDatapath ? `datapath-${argument('--index') ?? ''}` : 'xosand'
const path = join(config.runDirectory, isDatapath ? `${name}.sock` : 'control.sock')

if (config.coordinator.kind === 'etcd' && !isDatapath) startEtcd(config.coordinator.program ?? '')
rmSync(path, { force: true })
createServer(socket => {
  socket.on('error', () => undefined)
  createInterface({ input: socket }).on('line', line => {
    const { id } = JSON.parse(line) as { id: number }
    socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, result: null })}\n`)
  })
}).listen(path)
process.on('SIGTERM', () => {
  process.stderr.write('ended in order\n')
  appendFileSync(join(config.stateDirectory, 'ended'), `${name}\n`)
  process.exit(0)
})

function startEtcd(program: string): void {
  const file = join(config.stateDirectory, 'etcd.pid')
  if (existsSync(file) && handleOf(Number(readFileSync(file, 'utf8'))) !== null) return
  const words = ['--name', 'stub', '--data-dir', join(config.stateDirectory, 'etcd')]
  const child = spawn(program, words, { detached: true, stdio: 'ignore' })
  child.unref()
  writeFileSync(file, String(child.pid))
}
