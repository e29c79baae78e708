import http from 'k6/http';
import { check } from 'k6';

export const options = {
  vus: 2,
  iterations: 20,
  thresholds: { http_req_failed: ['rate<0.01'], http_req_duration: ['p(95)<5000'] },
};

export default function () {
  const answer = http.get(`${__ENV.SANDBOX_URL}/customer?customer=123`);
  check(answer, { 'it is the customer': (a) => a.status === 200 && a.json('ID') === '123' });
}
