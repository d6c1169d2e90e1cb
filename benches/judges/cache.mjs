// The HTTP cache suite (github.com/http-tests/cache-tests) against the edge.
//
//   node cache.mjs SUITE EDGE [IDS]
//
// SUITE is a clone with its dependencies installed, or the older edition on npm (http-cache-tests); EDGE the binary; IDS a
// file with the tests to run, one a line; without it, all that apply to a reverse proxy. A line of IDS may say what is
// expected (`ID pass`, `ID fail`): whatever else comes ends the run with status 1.
//
// The suite's origin runs in this process, on loopback; the edge is started in front of it with cache.yaml. Prints every
// test that did not pass, and the summary as the last line. CACHE_TEST=id runs that one test and prints all its messages.
// Verdicts are the suite's own; a test that depends on one that was not run is judged by itself.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const [suiteDir, edgeBinary, idsFile] = process.argv.slice(2)
if (!suiteDir || !edgeBinary) {
  console.error('usage: cache.mjs SUITE EDGE [IDS]')
  process.exit(2)
}
const of = file => import(pathToFileURL(path.resolve(suiteDir, file)).href)
const isClone = fs.existsSync(path.join(suiteDir, 'test-engine'))
const engine = file => of(isClone ? `test-engine/${file}` : file)
const one = process.env.CACHE_TEST
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'judge-cache-'))
const origin = await startOrigin()
const edge = await startEdge(origin.address().port)
try {
  const { runTests, getResults } = await engine('client/runner.mjs')
  const { determineTestResult } = await engine(isClone ? 'lib/results.mjs' : 'lib/display.mjs')
  const expected = read(idsFile)
  const suites = choose((await of('tests/index.mjs')).default, expected)
  // The older edition is told what fetches; what came with node since would add fields of its own.
  const told = isClone ? [] : [(await import(createRequire(path.resolve(suiteDir, 'x')).resolve('node-fetch'))).default]
  await runTests(suites, ...told, false, edge.base)
  // Of a verdict's three marks, the one for terminals.
  const verdict = id => determineTestResult(suites, id, getResults())[2]
  if (!one) process.exitCode = report(suites, getResults(), verdict, expected)
} finally {
  edge.process.kill()
  fs.rmSync(scratch, { recursive: true })
}
process.exit()

// The suite's origin listens on all addresses when told a port; here on loopback, on a free one.
async function startOrigin () {
  let server
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function () {
    server = this
    return listen.call(this, { host: '127.0.0.1', port: 0 })
  }
  Object.assign(process.env, {
    npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: path.join(scratch, 'pid')
  })
  const { log } = console
  console.log = () => {}
  await engine('server/server.mjs')
  while (!server?.listening) await new Promise(resolve => setTimeout(resolve, 10))
  console.log = one ? log : console.error
  console.report = log
  net.Server.prototype.listen = listen
  return server
}

async function startEdge (originPort) {
  const port = await freePort()
  const config = fileURLToPath(new URL('cache.yaml', import.meta.url))
  const log = fs.openSync(path.join(scratch, 'edge.log'), 'w')
  const child = spawn(edgeBinary, ['run', config], {
    env: { ...process.env, EDGE_PORT: String(port), ORIGIN_PORT: String(originPort) }, stdio: ['ignore', log, log]
  })
  for (let tries = 0; tries < 100; tries++) {
    if (child.exitCode !== null) break
    const socket = net.connect(port, '127.0.0.1')
    const up = await once(socket, 'connect').then(() => true, () => false)
    socket.destroy()
    if (up) return { process: child, base: `http://127.0.0.1:${port}` }
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  console.error(fs.readFileSync(path.join(scratch, 'edge.log'), 'utf8'))
  throw new Error('the edge did not start')
}

async function freePort () {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

// The tests to run, with what is expected of them.
function read (file) {
  if (one) return new Map([[one, undefined]])
  if (!file) return undefined
  const lines = fs.readFileSync(file, 'utf8').split('\n').filter(line => line && !line.startsWith('#'))
  return new Map(lines.map(line => line.trim().split(/\s+/)))
}

// The suites with those tests.
function choose (suites, expected) {
  const wanted = id => !expected || expected.has(id)
  const dressed = test => ({ ...test, dump: Boolean(one), depends_on: test.depends_on?.filter(wanted) })
  const chosen = suite => suite.tests.filter(test => !test.browser_only && wanted(test.id)).map(dressed)
  return suites.map(suite => ({ ...suite, tests: chosen(suite) }))
}

// Prints what did not pass, and the figures; the status to end with.
function report (suites, results, verdict, expected) {
  const counts = { required: [0, 0], optimal: [0, 0], check: [0, 0] }
  let surprises = 0
  for (const suite of suites) {
    for (const { id, name, kind = 'required' } of suite.tests) {
      const came = verdict(id)
      const passed = ['✅', 'Y'].includes(came)
      counts[kind][0] += passed
      counts[kind][1] += 1
      const hoped = expected?.get(id) ?? (passed ? 'pass' : 'fail')
      const surprise = (hoped === 'pass') !== passed
      surprises += surprise
      if (passed && !surprise) continue
      const detail = Array.isArray(results[id]) ? results[id].join(': ') : ''
      const line = [kind, suite.id, id, came, name.replace(/\s+/g, ' '), detail]
      console.report((surprise ? ['UNEXPECTED', ...line] : line).join('\t'))
    }
  }
  const [required, optimal, check] = Object.values(counts).map(([passed, all]) => `${passed}/${all}`)
  if (surprises) console.report(`${surprises} unlike ${idsFile}`)
  console.report(`required ${required}, optimal ${optimal}, check yes ${check}`)
  return surprises ? 1 : 0
}
