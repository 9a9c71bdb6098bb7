import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { type Command, InvalidArgumentError } from 'commander'
import { XosanError } from '../../core/errors.ts'
import { Console } from '../console.ts'
import { labCommand, labCut, labCutOneWay, labJoin, labShape } from '../lab/lab-links.ts'
import { type LinkStatus } from '../lab/network/links.ts'
import { type LabOptions, withLab } from './common.ts'

const BITS = { kbit: 1e3, mbit: 1e6, gbit: 1e9 } as const

/** Below this a single packet of the largest size would wait for more than ten seconds. */
const BITS_PER_SECOND_MIN = 64e3
const BITS_PER_SECOND_MAX = 100e9

/** Commands for the links of a lab that was made with `--netns`. */
export function addLabLinkCommands(lab: Command): void {
  addCut(lab)
  addJoin(lab)
  addShape(lab)
  addExec(lab)
}

/** A table of the links for people. */
export function showLinks(out: Console, links: readonly LinkStatus[]): void {
  out.table<LinkStatus>(links, [
    { title: 'HOST', value: ({ host }) => host },
    { title: 'ADDRESS', value: ({ address }) => address },
    { title: 'NAMESPACE', value: ({ namespace }) => namespace },
    { title: 'LINK', value: linkText, shrinks: true },
    { title: 'LIMIT', value: ({ bitsPerSecond }) => rateText(bitsPerSecond), align: 'right' },
  ])
}

function linkText({ state, losesTo }: LinkStatus): string {
  return losesTo.length === 0 ? state : `${state}, nothing arrives at ${losesTo.join(', ')}`
}

function addCut(lab: Command): void {
  withLab(lab.command('cut'))
    .description('let nothing pass between a host and the others, or from one host to another')
    .argument('<host...>', 'the host; with --one-way the sender, then the receiver')
    .option('--one-way', 'lose what the first host sends to the second, and nothing else')
    .action(async (hosts: string[], options: LabOptions & { readonly oneWay?: true }) => {
      const [from, to] = hosts
      const wanted = options.oneWay === true ? 2 : 1
      if (from === undefined || hosts.length !== wanted) {
        throw new XosanError('INVALID_ARGUMENT', {
          what: `\`lab cut\` of ${hosts.join(' ')}`,
          reason: 'it takes one host, or with --one-way a sender and a receiver',
        })
      }
      report(
        options,
        to === undefined ? await labCut(options.dir, from) : await labCutOneWay(options.dir, from, to)
      )
    })
}

function addJoin(lab: Command): void {
  withLab(lab.command('join'))
    .description('heal every cut of a host, also those in one direction from it or to it')
    .argument('[host]', 'the host; without it all')
    .action(async (host: string | undefined, options: LabOptions) => {
      report(options, await labJoin(options.dir, host ?? null))
    })
}

function addShape(lab: Command): void {
  withLab(lab.command('shape'))
    .description('limit the links in both directions')
    .argument('<rate>', '1gbit, 100mbit, ..., or off', parseRate)
    .argument('[host]', 'the host; without it all')
    .action(async (rate: number | null, host: string | undefined, options: LabOptions) => {
      report(options, await labShape(options.dir, rate, host ?? null))
    })
}

function addExec(lab: Command): void {
  lab
    .command('exec')
    .description("run a command in the network of a host; all else of it is the machine's")
    .requiredOption('--dir <directory>', 'directory of the lab')
    .argument('<host>', 'name of the host: h1, h2, ...')
    .argument('<command...>', 'the command, after --')
    .action(async (host: string, command: string[], options: { readonly dir: string }) => {
      process.exitCode = await runHere(await labCommand(options.dir, host, command))
    })
}

/** Runs a command with our own input and output. @returns its exit code, as a shell would have it */
async function runHere([program, ...words]: readonly string[]): Promise<number> {
  const child = spawn(program!, words, { stdio: 'inherit' })
  // The terminal sends Ctrl-C to both of us; the command decides what it means.
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  return await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signalName) => resolve(code ?? 128 + constants.signals[signalName!]))
  })
}

function report(options: LabOptions, links: readonly LinkStatus[]): void {
  const out = new Console(options.json === true)
  out.result({ links })
  showLinks(out, links)
}

/** @returns bit/s, or null for `off` */
function parseRate(text: string): number | null {
  if (text === 'off') return null
  const match = /^(\d+(?:\.\d+)?)(kbit|mbit|gbit)$/.exec(text)
  const rate = match === null ? NaN : Number(match[1]) * BITS[match[2] as keyof typeof BITS]
  if (!(rate >= BITS_PER_SECOND_MIN && rate <= BITS_PER_SECOND_MAX)) {
    throw new InvalidArgumentError('It must be a rate from 64kbit to 100gbit, or off.')
  }
  return Math.round(rate)
}

function rateText(bitsPerSecond: number | null): string {
  if (bitsPerSecond === null) return '-'
  const unit =
    (Object.keys(BITS) as (keyof typeof BITS)[]).findLast(name => bitsPerSecond >= BITS[name]) ?? 'kbit'
  return `${bitsPerSecond / BITS[unit]}${unit}`
}
