/** How the disks of peers are reached. */
import { connect } from 'node:net'
import { readFile } from 'node:fs/promises'
import { type BenchHost } from './system.ts'

export const unixUri = (socket: string, name = ''): string => `nbd+unix:///${name}?socket=${socket}`
export const tcpUri = ({ address }: BenchHost, port: number): string => `nbd://${address}:${port}/`

/** Whether somebody listens on a unix socket. */
export async function isListening(socket: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(socket)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
}

/** Whether a process listens on a port, as the kernel says of its network. */
export async function isListeningOn(pid: number | undefined, port: number): Promise<boolean> {
  if (pid === undefined) return false
  const text = await readFile(`/proc/${pid}/net/tcp`, 'utf8').catch(() => '')
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const LISTEN = '0A'
  return text.split('\n').some(line => {
    const [, local, , state] = line.trim().split(/\s+/)
    return state === LISTEN && local?.endsWith(wanted) === true
  })
}
