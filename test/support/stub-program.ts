/**
 * Stands in for xosand and for a datapath process where only their life and death matter: listens where the real
 * one would, answers every call with null, ends at SIGTERM.
 */
import { readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const argument = (name: string): string | undefined => process.argv[process.argv.indexOf(name) + 1]

const config = JSON.parse(readFileSync(argument('--config') ?? '', 'utf8')) as { runDirectory: string }
const isDatapath = process.argv.includes('--index')
const name = isDatapath ? `datapath-${argument('--index') ?? ''}.sock` : 'control.sock'
const path = join(config.runDirectory, name)

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
  process.exit(0)
})
